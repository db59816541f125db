"""Facts about the file and its target, and gates on them."""

from pathlib import Path

import pytest

from components.evaluation.gates import Gates, today
from components.evaluation.judgement import judge
from components.evaluation.measurements import Measurements
from components.evaluation.smoke import arena_bytes
from components.quantization.kernels import Kernels
from components.target_gates.candidate_facts import candidate_facts
from components.targets.cpu import measuring
from components.targets.edge_tpu import CompilerOptions

from contract_cases import image_model
from edge_tpu_graphs import Net, loop, unary


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("serving")
    (directory / "tflite").write_bytes(image_model())
    return directory


def test_facts_are_those_of_the_file_and_take_no_time_when_no_gate_asks(serving: Path) -> None:
    assert candidate_facts(serving, "edge_tpu", ()) == {
        "model_bytes": len(image_model()),
        "streamed_bytes": 0.0,
        "target_subgraphs": 1.0,
        "macs_on_target": 1.0,
        "first_cpu_op": "",
        "target_basis": "predicted by static analysis",
        "streamed_basis": "predicted by static analysis",
        "subgraphs_basis": "predicted by static analysis",
    }


@pytest.mark.parametrize(
    ("cpu_ops", "cpu_macs", "first", "facts"),
    [
        (0, 0, None, (1.0, "", "by vela 4.0")),
        (1, 25, {"op": "ELU"}, (0.75, "ELU", "by vela 4.0")),
        (1, None, None, (1.0, "", "predicted by static analysis, since the report of vela 4.0 does not say which ops")),
    ],
    ids=["all", "some", "unknown"],
)
def test_facts_of_the_target_are_those_of_the_compiler_when_its_report_says_so(
    serving: Path, cpu_ops: int, cpu_macs: int | None, first: dict[str, str] | None, facts: tuple[float, str, str]
) -> None:
    report = {
        "compiled": True,
        "tool": "vela 4.0",
        "on_target": {"ops": 3, "macs": None if cpu_macs is None else 100 - cpu_macs},
        "on_cpu": {"ops": cpu_ops, "macs": cpu_macs},
        "first_breaking_op": first,
        "subgraphs": 2,
        "memory": {"streamed_bytes": 640},
        "measurements": {},
        "problems": [],
    }
    found = candidate_facts(serving, "edge_tpu", (), report)
    assert (found["macs_on_target"], found["first_cpu_op"], found["target_basis"]) == facts
    verdict = judge(Gates.of("macs_on_target >= 0.5"), Measurements(metrics={}, examples={}, facts=found), today())
    assert verdict.texts == (f"holds: macs_on_target >= 0.5 (macs_on_target is {facts[0]:g}, {facts[2]})",)
    gates = Gates.of("streamed_bytes <= 0", "target_subgraphs <= 2")
    judged = judge(gates, Measurements(metrics={}, examples={}, facts=found), today()).texts
    # What the compiler says counts also where it does not say which ops are meant.
    assert judged == (
        "fails: streamed_bytes <= 0 (streamed_bytes is 640, by vela 4.0)",
        "holds: target_subgraphs <= 2 (target_subgraphs is 2, by vela 4.0)",
    )


@pytest.mark.parametrize(("runtime", "share", "first"), [(12, 1.0, ""), (11, 0.0, "CONV_2D")])
@pytest.mark.parametrize("reported", [False, True], ids=["no report", "a report without places"])
def test_facts_by_rules_are_those_of_the_compiler_options(
    serving: Path, runtime: int, share: float, first: str, reported: bool
) -> None:
    nowhere = {"compiled": True, "tool": "vela 4.0", "on_target": {"ops": 3, "macs": None}, "first_breaking_op": None}
    rest = {"on_cpu": {"ops": 1, "macs": None}, "subgraphs": 1, "memory": {"streamed_bytes": 0}}
    rest |= {"measurements": {}, "problems": []}
    report = {**nowhere, **rest} if reported else None
    options = CompilerOptions(min_runtime_version=runtime).to_json()  # INT8 since runtime 12
    found = candidate_facts(serving, "edge_tpu", (), report, options)
    assert (found["macs_on_target"], found["first_cpu_op"]) == (share, first)


def test_latency_and_arena_are_measured_and_say_where_when_gates_ask(serving: Path) -> None:
    gates = Gates.of("latency_ms <= 10000", "arena_bytes <= 1000000", "macs_on_target >= 1", "first_cpu_op in none")
    facts = candidate_facts(serving, "cpu", gates.metrics)
    assert facts["arena_bytes"] == arena_bytes(serving)
    assert 0 < float(facts["latency_ms"]) < 10_000
    verdict = judge(gates, Measurements(metrics={}, examples={(): 1}, facts=facts), today())
    assert verdict.blessed
    latency = next(text for text in verdict.texts if "latency_ms" in text)
    assert "kernels default kernels (XNNPACK" in latency
    assert "threads 1" in latency


def test_latency_is_the_median_of_so_many_runs_when_no_gate_asks(
    serving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def timed(tflite: bytes, kernels: Kernels, threads: int, count: int) -> measuring.Timing:
        runs.append((kernels, threads, count))
        return measuring.Timing(times_ms=(5.0, 1.0, 3.0), host="here", kernels="theirs")

    monkeypatch.setattr(measuring, "timed", timed)
    facts = candidate_facts(serving, "cpu", (), latency_runs=3)
    assert runs == [("default", 1, 3)]
    told = {name: value for name, value in facts.items() if name.startswith("latency")}
    assert told == {"latency_ms": 3.0, "latency_host": "here", "latency_kernels": "theirs", "latency_threads": "1"}


@pytest.mark.parametrize(
    ("target", "known"), [("edge_tpu", False), ("ethos_u", False), ("nnapi", False), ("cpu", True)]
)
def test_gate_refuses_with_a_reason_when_a_loop_off_the_target_multiplies(
    tmp_path: Path, target: str, known: bool
) -> None:
    (tmp_path / "tflite").write_bytes(loop())
    facts = candidate_facts(tmp_path, target, ())
    assert ("macs_on_target" in facts) is known
    verdict = judge(Gates.of("macs_on_target >= 0.5"), Measurements(metrics={}, examples={}, facts=facts), today())
    assert verdict.blessed is known
    assert ("op 1, WHILE, runs a subgraph that multiplies" in verdict.texts[0]) is not known


def test_rules_fill_in_what_a_compiler_does_not_say_and_each_fact_says_what_it_is_by(serving: Path) -> None:
    report = {
        "compiled": True,
        "tool": "a compiler 1.0",
        "on_target": {"ops": 3, "macs": 75},
        "on_cpu": {"ops": 1, "macs": 25},
        "first_breaking_op": {"op": "ELU"},
        "subgraphs": 2,
        "memory": {"streamed_bytes": None},
        "measurements": {},
        "problems": [],
    }
    found = candidate_facts(serving, "edge_tpu", (), report)
    told = {name: found[name] for name in ("macs_on_target", "target_subgraphs", "streamed_bytes")}
    assert told == {"macs_on_target": 0.75, "target_subgraphs": 2.0, "streamed_bytes": 0.0}
    by = [found[name] for name in ("target_basis", "subgraphs_basis", "streamed_basis")]
    assert by == ["by a compiler 1.0", "by a compiler 1.0", "predicted by static analysis"]


def test_least_estimate_is_none_for_a_gate_nor_is_one_of_a_model_that_is_refused(tmp_path: Path) -> None:
    net = Net()
    for code, version in (("LOGISTIC", 1), ("UNIDIRECTIONAL_SEQUENCE_LSTM", 1)):
        net.op(code, [net.tensor(1, 8, 8)], [net.tensor(1, 8, 8)], version)
    (tmp_path / "tflite").write_bytes(net.tflite())
    facts = candidate_facts(tmp_path, "edge_tpu", ())
    assert "streamed_bytes" not in facts
    judged = judge(Gates.of("streamed_bytes <= 0"), Measurements(metrics={}, examples={}, facts=facts), today())
    assert not judged.blessed
    (tmp_path / "tflite").write_bytes(unary("LOGISTIC", 1, 8, version=9))  # no compiler reads it
    assert {"streamed_bytes", "target_subgraphs"}.isdisjoint(candidate_facts(tmp_path, "edge_tpu", ()))
