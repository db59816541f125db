"""Facts about the file and its target, and gates on them."""

from pathlib import Path

import pytest

from components.candidate_facts import candidate_facts
from components.evaluation.gates import Gates, today
from components.evaluation.judgement import judge
from components.evaluation.measurements import Measurements
from components.evaluation.smoke import arena_bytes

from contract_cases import image_model


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("serving")
    (directory / "tflite").write_bytes(image_model())
    return directory


def test_facts_are_those_of_the_file_and_take_no_time_when_no_gate_asks(serving: Path) -> None:
    assert candidate_facts(serving, "edge_tpu", ()) == {
        "model_bytes": len(image_model()),
        "macs_on_target": 1.0,
        "first_cpu_op": "",
    }


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
