"""What gates on drift say, without examples."""

import datetime

import pytest

from components.evaluation.drift import Distance, Drift, of_drift
from components.evaluation.gate import Gate
from components.evaluation.gates import Gates, Override
from components.evaluation.judgement import judge, judge_drift
from components.evaluation.measurements import INTEGER, Cell, Measurements

_DAY = datetime.date(2026, 1, 1)


def _distance(feature: str, distance: float) -> Distance:
    return Distance(feature=feature, against="training examples", measure="L-infinity", distance=distance)


_DRIFT = Drift(
    distances=(_distance("age", 0.25), _distance("inputs/x/mean", 0.5), _distance("calibration/x", 0.75)),
)


def test_facts_have_each_distance_and_the_greatest_from_training_examples() -> None:
    each = {"drift_age": 0.25, "drift_inputs/x/mean": 0.5, "drift_calibration/x": 0.75}
    assert _DRIFT.facts() == {**each, "drift": 0.5}
    assert Drift(no_baseline="none yet").facts() == {"no_drift_baseline": "none yet"}


@pytest.mark.parametrize("drift", [_DRIFT, Drift(no_baseline="none yet"), Drift(unmeasured="gone")])
def test_drift_is_read_as_it_was_written(drift: Drift) -> None:
    assert Drift.from_json(drift.to_json()) == drift


@pytest.mark.parametrize(
    ("gate", "code", "text"),
    [
        ("drift of age <= 0.25", "holds", "holds: drift of age <= 0.25 (drift of age is 0.2500)"),
        ("drift of age <= 0.2", "drift", "fails: drift of age <= 0.2 (drift of age is 0.2500)"),
        ("drift <= 0.4", "drift", "fails: drift <= 0.4 (drift is 0.5000, of inputs/x/mean)"),
        ("drift of calibration/x <= 0.9", "holds", "holds: drift of calibration/x <= 0.9 (drift of calibration/x is"),
        (
            "drift of hair <= 0.4",
            "not_measured",
            "fails: drift of hair <= 0.4 (drift of hair is not measured; there are age, calibration/x, inputs/x/mean)",
        ),
    ],
)
def test_gates_hold_a_feature_or_the_greatest_distance(gate: str, code: str, text: str) -> None:
    verdict = judge_drift(Gates.of(gate), _DRIFT.facts(), _DAY)
    (reason,) = verdict.reasons
    assert (reason.code, reason.gate) == (code, gate)
    assert reason.text.startswith(text)
    assert verdict.blessed == (code == "holds")


def test_reason_names_the_feature_whatever_other_facts_have_the_same_value() -> None:
    facts = {"macs_on_target": 1.0, "compiled": 1.0, "drift": 1.0, "drift_age": 1.0, "calibration/x": 1.0}
    (reason,) = judge_drift(Gates.of("drift <= 0.2"), facts, _DAY).reasons
    assert reason.text == "fails: drift <= 0.2 (drift is 1.0000, of age)"


def test_first_span_passes_with_a_reason_of_its_own() -> None:
    verdict = judge_drift(
        Gates.of("drift <= 0.4"), Drift(no_baseline="there is no last blessed model yet").facts(), _DAY
    )
    assert (verdict.blessed, verdict.codes) == (True, ("no_baseline",))
    assert verdict.texts == ("skipped: drift <= 0.4 (there is no last blessed model yet)",)


def test_what_could_not_be_measured_refuses_by_the_greatest_and_not_by_a_feature_that_was() -> None:
    facts = Drift(distances=(_distance("age", 0.1),), unmeasured="the preprocessing is gone").facts()
    verdict = judge_drift(Gates.of("drift <= 0.4", "drift of age <= 0.4"), facts, _DAY)
    assert [reason.code for reason in verdict.reasons] == ["not_measured", "holds"]
    assert "the preprocessing is gone" in verdict.reasons[0].text


@pytest.mark.parametrize(("until", "code"), [(_DAY, "overridden"), (datetime.date(2025, 12, 31), "override_expired")])
def test_override_of_drift_counts_until_its_day(until: datetime.date, code: str) -> None:
    override = Override(gate="drift <= 0.4", because="a new camera", until=until)
    gates = Gates(bounds=Gates.of("drift <= 0.4").bounds, overrides=(override,))
    verdict = judge_drift(gates, _DRIFT.facts(), _DAY)
    assert (verdict.codes, verdict.blessed) == ((code,), code == "overridden")


def test_evaluator_refuses_a_model_for_drift_and_a_gate_on_drift_is_none_on_the_model() -> None:
    measured = Measurements(metrics={Cell(model=INTEGER): {"accuracy": 1.0}}, examples={(): 9}, facts=_DRIFT.facts())
    refused = judge(Gates.of("accuracy >= 0.9", "drift <= 0.4"), measured, _DAY)
    assert [reason.code for reason in refused.reasons] == ["holds", "drift"]
    assert not refused.blessed
    assert judge(Gates.of("drift <= 0.6"), measured, _DAY).codes == ("holds", "nothing_gated")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drift >= 0.1", "a worse model would keep it more easily, expected 'drift <= x'"),
        ("drift rise <= 0.1", "a worse model would keep it more easily"),
        ("drift <= 1", "distances are from 0 to 1"),
        ("drift of age <= -0.1", "distances are from 0 to 1"),
        ("drift[label=3] <= 0.1", "without an output or a slice"),
    ],
)
def test_gates_on_drift_without_a_meaning_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gate.parse(text)


def test_gates_on_drift_are_told_from_others() -> None:
    gates = Gates.of("accuracy >= 0.9", "drift of inputs/image/mean <= 0.2", "drift <= 0.3")
    assert [str(gate) for gate in of_drift(gates)] == ["drift of inputs/image/mean <= 0.2", "drift <= 0.3"]
    assert Gates.from_json(gates.to_json()) == gates
