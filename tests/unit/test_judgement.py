import dataclasses
import datetime
import json
import math
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from conftest import REPOSITORY

from components.evaluation.gates import Gates, Override
from components.evaluation.judgement import judge
from components.evaluation.measurements import (
    FAKE_QUANT,
    FLOAT,
    INTEGER,
    LAST_BLESSED,
    Cell,
    Measurements,
    Paired,
    of_all_examples,
)
from components.evaluation.verdict import CODES, PASSING, Code

_DAY = datetime.date(2026, 6, 1)
_NAN = math.nan
_THREE, _SEVEN = (("label", "3"),), (("label", "7"),)

# Of 1,000 examples, 5 are right only in integers and 15 only in floats: a difference of -0.01; made-up bounds.
_PAIRED = Paired(
    examples=1000,
    effective_examples=1000.0,
    agreement=0.97,
    better=5,
    worse=15,
    difference=-0.01,
    low=-0.02,
    high=0.0,
    confidence=0.95,
    mcnemar_p=0.04,
    ties=4,
    other_ties=1,
    calibration_error=0.05,
    other_calibration_error=0.03,
)
_FACTS: dict[str, float | str] = {
    "model_bytes": 50_000.0,
    "arena_bytes": 16_384.0,
    "macs_on_target": 0.95,
    "first_cpu_op": "SOFTMAX",
    "latency_ms": 2.5,
    "latency_host": "bench-1",
    "latency_kernels": "xnnpack",
    "latency_threads": "4",
}


def _measured(**changes: Any) -> Measurements:
    """A small world: float 0.90, integer 0.89, last blessed 0.88, fake quantization 0.895; slice 7 is bad and small."""
    cells = {
        Cell(model=INTEGER): {"accuracy": 0.89, "loss": 0.5, "agreement": 0.975, "f1": _NAN},
        Cell(model=FLOAT): {"accuracy": 0.90, "loss": 0.25, "f1": 0.5, "parent_nan": 1.0},
        Cell(model=LAST_BLESSED): {"accuracy": 0.88},
        Cell(model=FAKE_QUANT): {"accuracy": 0.895},
        Cell(model=INTEGER, slice=_THREE): {"accuracy": 0.95},
        Cell(model=FLOAT, slice=_THREE): {"accuracy": 0.96},
        Cell(model=INTEGER, slice=_SEVEN): {"accuracy": 0.50},
        Cell(model=FLOAT, slice=_SEVEN): {"accuracy": 0.75},
        Cell(model=INTEGER, output="boxes"): {"accuracy": 0.70},
        Cell(model=FLOAT, output="boxes"): {"accuracy": 0.90},
    }
    measured = Measurements(
        metrics=cells,
        examples={(): 1000, _THREE: 100, _SEVEN: 4},
        paired={
            (FLOAT, "", ()): _PAIRED,
            (LAST_BLESSED, "", ()): dataclasses.replace(
                _PAIRED, agreement=0.92, better=25, difference=0.01, low=-0.004
            ),
            (FLOAT, "", _SEVEN): dataclasses.replace(
                _PAIRED, examples=4, effective_examples=4.0, difference=0.0, low=0.0
            ),
        },
        facts=_FACTS,
    )
    return dataclasses.replace(measured, **changes)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("accuracy >= 0.89", "holds"),
        ("accuracy >= 0.8901", "value"),
        ("loss <= 0.5", "holds"),
        ("loss <= 0.49", "value"),
        ("accuracy drop <= 0.01", "holds"),  # 0.90 - 0.89 = 0.010000000000000009 in doubles
        ("accuracy drop <= 0.0099", "change"),
        ("accuracy drop <= -0.01", "change"),
        ("loss rise <= 0.25", "holds"),
        ("loss rise <= 0.24", "change"),
        ("f1 >= 0", "not_a_number"),
        ("f1 <= 1", "not_a_number"),
        ("f1 drop <= 1", "not_a_number"),
        ("accuracy drop vs last_blessed <= 0", "holds"),
        ("accuracy drop vs last_blessed <= -0.02", "change"),
        ("accuracy drop vs fake_quant <= 0.005", "holds"),
        ("accuracy drop vs fake_quant <= 0.004", "change"),
        ("accuracy[label=3] >= 0.95", "holds"),
        ("accuracy[label=3] >= 0.96", "value"),
        ("accuracy[label=3] drop <= 0.01", "holds"),
        ("accuracy[label=7] drop <= 0.2", "change"),
        ("accuracy[label=9] >= 0", "missing_slice"),
        ("accuracy[country=*] >= 0", "missing_slice"),
        ("accuracy[label=3] drop vs last_blessed <= 0.9", "not_measured"),
        ("loss[label=3] <= 9", "not_measured"),
        ("accuracy of boxes >= 0.7", "holds"),
        ("accuracy of boxes drop <= 0.1", "change"),
        ("accuracy of masks >= 0", "not_measured"),
        ("accuracy drop <= 0.02 at 95%", "holds"),  # the lower bound is -0.02
        ("accuracy drop <= 0.019 at 95%", "confidence"),  # though the difference itself is -0.01
        ("accuracy drop <= 0.002 at 95%", "too_few_examples"),  # 1,000 of 1,917
        ("accuracy drop <= 0.02 at 90%", "not_measured"),
        ("accuracy drop vs last_blessed <= 0.004 at 95%", "holds"),
        ("accuracy[label=7] drop <= 0.02 at 95%", "too_few_examples"),  # 4 of 189, though none flipped
        ("accuracy[label=3] drop <= 0.02 at 95%", "not_measured"),
        ("agreement >= 0.975", "holds"),
        ("agreement >= 0.98", "value"),
        ("agreement vs last_blessed >= 0.92", "holds"),
        ("agreement vs last_blessed >= 0.93", "value"),
        ("better >= 5", "holds"),
        ("better >= 6", "value"),
        ("worse <= 15", "holds"),
        ("worse <= 14", "value"),
        ("ties <= 3", "value"),
        ("ties rise <= 3", "holds"),
        ("ties rise <= 2", "change"),
        ("calibration_error <= 0.05", "holds"),
        ("calibration_error rise <= 0.02", "holds"),
        ("calibration_error rise <= 0.01", "change"),
        ("model_bytes <= 50000", "holds"),
        ("model_bytes <= 49999", "value"),
        ("arena_bytes <= 16384", "holds"),
        ("arena_bytes <= 16000", "value"),
        ("macs_on_target >= 0.95", "holds"),
        ("macs_on_target >= 0.96", "value"),
        ("first_cpu_op in none, SOFTMAX", "holds"),
        ("first_cpu_op in none", "value"),
        ("latency_ms <= 2.5", "holds"),
        ("latency_ms <= 2", "value"),
    ],
)
def test_judge_gives_the_code_and_blesses_only_what_holds(text: str, code: Code) -> None:
    verdict = judge(Gates.of(text), _measured(), _DAY)
    assert verdict.codes == (code,)
    assert verdict.blessed == (code == "holds")
    assert [reason.gate for reason in verdict.reasons] == [text]
    assert verdict.texts[0].startswith(f"{'holds' if code == 'holds' else 'fails'}: {text} (")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy >= 0.9", "fails: accuracy >= 0.9 (accuracy is 0.8900)"),
        ("accuracy drop <= 0.02", "holds: accuracy drop <= 0.02 (accuracy is 0.8900, float 0.9000)"),
        (
            "accuracy[label=7] drop <= 0.1",
            "fails: accuracy[label=7] drop <= 0.1 (accuracy on label=7 is 0.5000, float 0.7500, 4 examples)",
        ),
        (
            "accuracy drop <= 0.015 at 95%",
            "fails: accuracy drop <= 0.015 at 95% (the difference from float is -0.0100, between -0.0200 and 0.0000,"
            " 1000 examples)",
        ),
        (
            "accuracy[label=7] drop <= 0.02 at 95%",
            "fails: accuracy[label=7] drop <= 0.02 at 95% (the difference from float on label=7 is 0.0000, between"
            " 0.0000 and 0.0000, 4 examples; this bound needs at least 189)",
        ),
        (
            "latency_ms <= 2.5",
            "holds: latency_ms <= 2.5 (latency_ms is 2.5 on bench-1, kernels xnnpack, threads 4)",
        ),
        ("first_cpu_op in none", "fails: first_cpu_op in none (first_cpu_op is SOFTMAX)"),
    ],
)
def test_texts_show_the_figures(text: str, expected: str) -> None:
    assert judge(Gates.of(text), _measured(), _DAY).texts == (expected,)


@pytest.mark.parametrize(
    ("text", "value", "other", "figures"),
    [
        ("a >= 0.97", 0.96996, 1.0, "a is 0.96996"),
        ("a >= 0.97", 0.97, 1.0, "a is 0.9700"),
        ("a <= 0.97", 0.9700000004, 1.0, "a is 0.9700000004"),
        ("a <= 2e-05", 3e-05, 1.0, "a is 0.00003"),
        ("a <= 2e-05", 1e-05, 1.0, "a is 0.00001"),
        ("a drop <= 0.01", 0.96996, 0.98, "a is 0.96996, float 0.98000, a drop of 0.01004"),
        ("a drop <= 0.01", 0.9699, 0.98, "a is 0.9699, float 0.9800"),
        ("a drop <= 0.01", 0.97, 0.98, "a is 0.9700, float 0.9800"),
        ("a rise <= 1e-06", 0.500002, 0.5, "a is 0.500002, float 0.500000, a rise of 0.000002"),
        ("a drop <= 0.1", 0.97001, 0.97, "a is 0.97001, float 0.97000, a drop of -0.00001"),
    ],
)
def test_texts_never_show_a_value_as_its_bound_or_as_the_other_when_it_is_not(
    text: str, value: float, other: float, figures: str
) -> None:
    (found,) = judge(Gates.of(text), of_all_examples({"a": value}, {"a": other}, 9), _DAY).texts
    assert found.partition(text)[2] == f" ({figures})"


def test_texts_never_show_a_bound_of_an_interval_as_the_gates_when_it_is_not() -> None:
    paired = dataclasses.replace(_PAIRED, low=-0.02004)
    (found,) = judge(Gates.of("accuracy drop <= 0.02 at 95%"), _measured(paired={(FLOAT, "", ()): paired}), _DAY).texts
    assert found.startswith("fails:")
    assert "is -0.01000, between -0.02004 and 0.00000, 1000 examples" in found


def test_reason_has_got_limit_slice_output_and_examples() -> None:
    (reason,) = judge(Gates.of("accuracy[label=7] drop <= 0.1"), _measured(), _DAY).reasons
    assert (reason.got, reason.limit, reason.slice, reason.output, reason.examples) == (0.25, 0.1, _SEVEN, "", 4)
    (reason,) = judge(Gates.of("accuracy of boxes >= 0.5"), _measured(), _DAY).reasons
    assert (reason.got, reason.limit, reason.slice, reason.output, reason.examples) == (0.7, 0.5, (), "boxes", 1000)
    (reason,) = judge(Gates.of("first_cpu_op in none, CAST"), _measured(), _DAY).reasons
    assert (reason.got, reason.limit, reason.examples) == ("SOFTMAX", "none, CAST", 0)


def test_every_slice_is_judged_when_the_value_is_a_star() -> None:
    verdict = judge(Gates.of("accuracy[label=*] >= 0.9"), _measured(), _DAY)
    assert [(reason.code, reason.slice) for reason in verdict.reasons] == [("holds", _THREE), ("value", _SEVEN)]
    assert not verdict.blessed
    held = judge(Gates.of("accuracy[label=*] >= 0.1"), _measured(), _DAY)
    assert held.blessed
    assert held.texts == (
        "holds: accuracy[label=*] >= 0.1 (accuracy on label=7 is 0.5000, 4 examples), and in 1 other slices",
    )


def test_slices_match_in_any_order_of_features() -> None:
    cut = (("city", "Rome"), ("country", "Italy"))
    cells = {Cell(model=INTEGER): {"a": 1.0}, Cell(model=INTEGER, slice=cut): {"a": 0.5}}
    measured = Measurements(metrics=cells, examples={(): 9, cut: 3})
    for text in ("a[country=Italy, city=Rome] >= 0.5", "a[country=*, city=Rome] >= 0.5", "a[city=*, country=*] >= 0.5"):
        assert judge(Gates.of(text), measured, _DAY).blessed
    assert judge(Gates.of("a[country=*] >= 0"), measured, _DAY).codes == ("missing_slice",)


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("model_bytes <= 1", "model_bytes"),
        ("latency_ms <= 9", "latency_ms"),
        ("latency_ms <= 9", "latency_host"),
        ("latency_ms <= 9", "latency_kernels"),
        ("latency_ms <= 9", "latency_threads"),
    ],
)
def test_judge_refuses_when_a_fact_or_how_it_was_measured_is_not_known(text: str, left_out: str) -> None:
    facts = {name: value for name, value in _FACTS.items() if name != left_out}
    verdict = judge(Gates.of(text), _measured(facts=facts), _DAY)
    assert verdict.codes == ("not_measured",)
    assert not verdict.blessed


@pytest.mark.parametrize("text", ["worse <= 9", "better >= 0", "ties <= 9", "ties rise <= 9", "agreement >= 0"])
def test_judge_refuses_gates_on_classes_when_the_model_gives_values(text: str) -> None:
    """0 of what cannot be counted is no reason to bless."""
    nothing = dict.fromkeys(("better", "worse", "ties", "other_ties"), 0)
    paired = dataclasses.replace(_PAIRED, agreement=_NAN, difference=_NAN, low=_NAN, high=_NAN, **nothing)
    measured = Measurements(metrics={Cell(model=INTEGER): {}}, examples={(): 9}, paired={(FLOAT, "", ()): paired})
    assert judge(Gates.of(text), measured, _DAY).codes == ("not_a_number",)


def test_judge_refuses_all_figures_of_examples_that_weigh_nothing() -> None:
    measured = _measured(weightless=frozenset({_THREE}))
    for text in ("accuracy[label=3] >= 0.5", "accuracy[label=*] drop <= 0.9"):
        verdict = judge(Gates.of(text), measured, _DAY)
        assert "not_measured" in verdict.codes
        assert any("all 100 examples on label=3 have weight 0" in reason for reason in verdict.texts)


@pytest.mark.parametrize("text", ["accuracy drop <= 0.5", "agreement >= 0", "accuracy drop <= 0.02 at 95%"])
def test_judge_refuses_to_compare_with_a_model_that_gives_no_numbers(text: str) -> None:
    measured = _measured(degenerate={(FLOAT, ""): ("not a number",)})
    assert judge(Gates.of(text), measured, _DAY).codes == ("not_a_number",)
    assert judge(Gates.of("accuracy >= 0.5"), measured, _DAY).blessed


def test_judge_counts_weighted_examples_by_what_they_are_worth() -> None:
    paired = dataclasses.replace(_PAIRED, effective_examples=12.0, low=0.0)
    measured = _measured(paired={(FLOAT, "", ()): paired})
    verdict = judge(Gates.of("accuracy drop <= 0.02 at 95%"), measured, _DAY)
    assert verdict.codes == ("too_few_examples",)
    assert "1000 examples whose weights make them as good as 12" in verdict.texts[0]


def test_judge_refuses_when_labels_are_unclear_whatever_the_gates() -> None:
    verdict = judge(Gates.of("accuracy >= 0.5"), _measured(unclear={"": "set label_kind"}), _DAY)
    assert verdict.codes == ("holds", "unclear_labels")
    assert not verdict.blessed


def test_first_cpu_op_is_none_when_all_ops_are_on_the_target() -> None:
    verdict = judge(Gates.of("first_cpu_op in none"), _measured(facts={"first_cpu_op": ""}), _DAY)
    assert verdict.blessed
    assert verdict.reasons[0].got == "none"


def test_judge_refuses_when_no_gate_is_configured_and_says_so_loudly() -> None:
    verdict = judge(Gates(), _measured(), _DAY)
    assert (verdict.blessed, verdict.codes) == (False, ("nothing_gated",))
    assert "NOTHING WAS GATED: no gate is configured" in verdict.texts[0]


def test_judge_blesses_ungated_only_when_it_is_told_to() -> None:
    verdict = judge(Gates(bless_ungated=True), _measured(), _DAY)
    assert (verdict.blessed, verdict.codes) == (True, ("blessed_ungated",))
    assert "NOTHING WAS GATED" in verdict.texts[0]
    told = dataclasses.replace(Gates.of("accuracy >= 0.9"), bless_ungated=True)
    assert judge(told, _measured(), _DAY).codes == ("value",)


@pytest.mark.parametrize(
    ("facts", "code"),
    [({"compiled": 1.0}, "holds"), ({"compiled": 0.0}, "not_compiled"), ({}, "not_measured")],
)
def test_judge_refuses_what_is_not_compiled_when_that_is_required(facts: dict[str, float | str], code: str) -> None:
    gates = dataclasses.replace(Gates.of("accuracy >= 0.1"), require_compiled=True)
    verdict = judge(gates, _measured(facts=facts), _DAY)
    reason = verdict.reasons[-1]
    assert (reason.gate, reason.code, verdict.blessed) == ("compiled", code, code == "holds")
    assert judge(Gates.of("accuracy >= 0.1"), _measured(facts=facts), _DAY).blessed


def test_judge_says_that_nothing_was_gated_when_only_a_compilation_is_required() -> None:
    verdict = judge(Gates(require_compiled=True), _measured(facts={"compiled": 1.0}), _DAY)
    assert verdict.codes == ("holds", "nothing_gated")


@pytest.mark.parametrize("kind", ["constant", "one class", "saturated", "not a number"])
@pytest.mark.parametrize("gates", [Gates.of("accuracy >= 0.1"), Gates(bless_ungated=True)])
def test_degenerate_outputs_refuse_with_and_without_gates(kind: str, gates: Gates) -> None:
    verdict = judge(gates, _measured(degenerate={(INTEGER, "boxes"): (kind,), (INTEGER, ""): ()}), _DAY)
    assert not verdict.blessed
    (reason,) = [reason for reason in verdict.reasons if reason.code == "degenerate"]
    assert (reason.got, reason.output, reason.examples) == (kind, "boxes", 1000)
    assert reason.text == f"fails: output 'boxes' of the integer model is degenerate: {kind}"


def test_degenerate_outputs_of_other_models_do_not_refuse() -> None:
    assert judge(Gates.of("accuracy >= 0.1"), _measured(degenerate={(FLOAT, ""): ("constant",)}), _DAY).blessed


def _without_baseline(measured: Measurements) -> dict[str, Any]:
    metrics = {cell: values for cell, values in measured.metrics.items() if cell.model != LAST_BLESSED}
    return {"metrics": metrics, "paired": {key: one for key, one in measured.paired.items() if key[0] != LAST_BLESSED}}


@pytest.mark.parametrize(
    "text",
    [
        "accuracy drop vs last_blessed <= 0",
        "agreement vs last_blessed >= 1",
        "accuracy drop vs last_blessed <= 0.01 at 95%",
    ],
)
def test_first_run_skips_gates_against_the_last_blessed_model_and_says_so(text: str) -> None:
    first = _measured(**_without_baseline(_measured()))
    verdict = judge(Gates.of(text, "accuracy >= 0.5"), first, _DAY)
    assert (verdict.blessed, verdict.codes) == (True, ("holds", "no_baseline"))
    assert verdict.texts[0] == f"skipped: {text} (there is no last blessed model yet)"


def test_first_run_is_not_blessed_when_every_gate_is_against_the_last_blessed_model() -> None:
    first = _measured(**_without_baseline(_measured()))
    verdict = judge(Gates.of("accuracy drop vs last_blessed <= 0"), first, _DAY)
    assert (verdict.blessed, verdict.codes) == (False, ("no_baseline", "nothing_gated"))


def test_incompatible_baseline_refuses_until_it_is_overridden() -> None:
    changed = _measured(incompatible=("output 'scores': labels a, b became a, b, c",), **_without_baseline(_measured()))
    text = "accuracy drop vs last_blessed <= 0"
    verdict = judge(Gates.of(text, "accuracy >= 0.5"), changed, _DAY)
    assert (verdict.blessed, verdict.codes) == (False, ("holds", "incompatible_baseline"))
    assert "labels a, b became a, b, c" in verdict.texts[0]
    assert judge(_overriding(text, "accuracy >= 0.5"), changed, _DAY).codes == ("holds", "overridden")
    assert judge(Gates.of("accuracy >= 0.5"), changed, _DAY).blessed  # nothing asks for that model


def test_baseline_of_another_pipeline_refuses_whatever_else_differs_until_it_is_overridden() -> None:
    changed = _measured(
        foreign=("it is of target cpu, not edge_tpu",),
        incompatible=("input 'image' is new",),
        **_without_baseline(_measured()),
    )
    text = "accuracy drop vs last_blessed <= 0"
    verdict = judge(Gates.of(text, "accuracy >= 0.5"), changed, _DAY)
    assert (verdict.blessed, verdict.codes) == (False, ("foreign_baseline", "holds"))
    assert "it is of target cpu, not edge_tpu" in verdict.texts[0]
    assert judge(_overriding(text, "accuracy >= 0.5"), changed, _DAY).codes == ("holds", "overridden")


def _overriding(text: str, *others: str) -> Gates:
    override = Override(gate=text, because="the new labels are needed", until=_DAY)
    return dataclasses.replace(Gates.of(text, *others), overrides=(override,))


def test_override_lets_a_failing_gate_pass_and_keeps_why() -> None:
    verdict = judge(_overriding("accuracy >= 0.9"), _measured(), _DAY)
    assert (verdict.blessed, verdict.codes) == (True, ("overridden",))
    assert verdict.texts == (
        "overridden until 2026-06-01 because the new labels are needed: fails: accuracy >= 0.9 (accuracy is 0.8900)",
    )


def test_override_changes_nothing_when_the_gate_holds_or_another_fails() -> None:
    assert judge(_overriding("accuracy >= 0.5"), _measured(), _DAY).codes == ("holds",)
    assert not judge(_overriding("accuracy >= 0.9", "loss <= 0.1"), _measured(), _DAY).blessed


def test_override_does_not_count_after_its_last_day() -> None:
    late = _DAY + datetime.timedelta(days=1)
    verdict = judge(_overriding("accuracy >= 0.9"), _measured(), late)
    assert (verdict.blessed, verdict.codes) == (False, ("override_expired",))
    assert judge(_overriding("accuracy >= 0.5"), _measured(), late).blessed


def test_override_does_not_excuse_degenerate_outputs() -> None:
    measured = _measured(degenerate={(INTEGER, ""): ("constant",)})
    assert judge(_overriding("accuracy >= 0.9"), measured, _DAY).codes == ("degenerate", "overridden")
    assert not judge(_overriding("accuracy >= 0.9"), measured, _DAY).blessed


def test_verdict_is_json_without_nan() -> None:
    verdict = judge(Gates.of("f1 >= 0", "accuracy >= 0.5"), _measured(), _DAY)
    read = json.loads(verdict.to_json(), parse_constant=pytest.fail)
    assert read["blessed"] is False
    assert read["reasons"][0] == {
        "code": "not_a_number",
        "gate": "f1 >= 0",
        "got": None,
        "limit": 0.0,
        "slice": [],
        "output": "",
        "examples": 1000,
        "text": "fails: f1 >= 0 (f1 is nan)",
    }


def test_judge_raises_when_a_metric_is_no_single_number() -> None:
    with pytest.raises(ValueError, match="gates on metrics that are not single numbers: matrix"):
        judge(Gates.of("matrix >= 0.5"), _measured(), _DAY)


def test_judge_takes_plain_metrics_of_a_training_loop() -> None:
    integer: Mapping[str, float] = {"accuracy": 0.75, "agreement": 0.5}
    measured = of_all_examples(integer, {"accuracy": 1.0}, 8)
    assert judge(Gates.of("accuracy drop <= 0.25", "agreement >= 0.5"), measured, _DAY).blessed
    assert not judge(Gates.of("accuracy drop <= 0.2", "agreement >= 0.5"), measured, _DAY).blessed


def test_unusable_baseline_refuses_only_the_gates_against_it() -> None:
    broken = _measured(unusable=("it was ended by SIGSEGV",), **_without_baseline(_measured()))
    assert judge(Gates.of("accuracy >= 0"), broken, _DAY).blessed
    verdict = judge(Gates.of("accuracy >= 0", "accuracy drop vs last_blessed <= 0.5"), broken, _DAY)
    assert (verdict.blessed, verdict.codes) == (False, ("holds", "unusable_baseline"))


def test_every_code_is_explained_and_only_four_pass() -> None:
    assert tuple(CODES) == get_args(Code)
    assert {"holds", "overridden", "no_baseline", "blessed_ungated"} == PASSING


def test_readme_has_every_code() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for code, meaning in CODES.items():
        assert f"| `{code}` | {'passes' if code in PASSING else 'refuses'} | {meaning} |" in readme
