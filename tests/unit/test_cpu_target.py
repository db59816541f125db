"""Target cpu: whose kernels run an op, by rules and by asking, and how long an inference takes."""

import time
from pathlib import Path

import numpy as np
import pytest

from components.quantization import convert
from components.targets import CompileReport, load_target
from components.targets.cpu import TARGET, CpuOptions
from components.targets.cpu.xnnpack import BUILTIN, CUSTOM, DELEGATED

import small_models
from edge_tpu_graphs import Net, chain, unary

MODELS = ("mlperf_tiny/kws_ref_model", "mlperf_tiny/pretrainedResnet", "mlperf_tiny/pretrainedResnet_quant")


def _statuses(report: CompileReport) -> dict[str, int]:
    return {status: sum(row.count for row in report.ops if row.status == status) for status in (DELEGATED, BUILTIN)}


def test_every_builtin_is_on_the_target_whoever_runs_it() -> None:
    mapping = TARGET.inspect(chain("LEAKY_RELU", "RELU", "LOGISTIC"))
    assert [(op.on_target, op.status) for op in mapping.ops] == [(True, DELEGATED), (True, BUILTIN), (True, DELEGATED)]


def test_custom_op_is_not_on_the_target() -> None:
    net = Net()
    net.op("CUSTOM", [net.tensor(1, 8)], [net.tensor(1, 8)])
    net._model.operatorCodes[0].customCode = "mine"
    (op,) = TARGET.inspect(net.tflite()).ops
    assert (op.on_target, op.status) == (False, CUSTOM)
    # The interpreter refuses it, so the rules speak.
    report = TARGET.compile(net.tflite(), options='{"measure_latency": true}').report
    assert report.latency is None
    assert "nothing is measured: " in report.problems[0]
    assert "unresolved custom op: mine" in report.problems[0]
    assert (report.tool, report.ops_on_cpu) == ("static analysis", 1)


@pytest.mark.parametrize(("dtype", "status"), [("INT8", DELEGATED), ("INT16", BUILTIN)])
def test_rules_go_by_type(dtype: str, status: str) -> None:
    (op,) = TARGET.inspect(unary("MUL", 1, 8, dtype=dtype)).ops
    assert op.status == status


@pytest.mark.slow
def test_compile_asks_the_interpreter_and_copies() -> None:
    tflite = convert(small_models.convolutional(), representative_dataset=[small_models.images(4)], profile="cpu")
    model = TARGET.compile(tflite)
    assert model.tflite == tflite
    assert not model.report.compiled
    assert model.report.tool.startswith("TFLite interpreter of TensorFlow ")
    assert model.report.latency is None
    assert _statuses(model.report) == _statuses(TARGET.report(tflite, TARGET.inspect(tflite)))


@pytest.mark.slow
def test_latency_is_measured_with_its_basis_when_asked_for() -> None:
    tflite = convert(small_models.convolutional(), representative_dataset=[small_models.images(4)], profile="cpu")
    options = '{"measure_latency": true, "threads": 2, "runs": 7, "kernels": "reference"}'
    report = TARGET.compile(tflite, options=options).report
    assert report.latency is not None
    assert (report.latency.kind, report.latency.ms > 0) == ("measured", True)
    assert "median of 7 runs on " in report.latency.basis
    assert ", 2 threads, reference kernels, " in report.latency.basis
    figures = report.measurements
    assert figures["latency_p10_ms"] <= report.latency.ms <= figures["latency_p90_ms"]
    assert (figures["latency_runs"], figures["latency_threads"]) == (7.0, 2.0)
    assert np.isfinite(report.latency.ms)


def test_options_are_refused_all_at_once() -> None:
    with pytest.raises(ValueError, match="threads: got 0.*runs: got -1.*kernels: got 'fast'"):
        TARGET.require_options('{"threads": 0, "runs": -1, "kernels": "fast"}')
    with pytest.raises(ValueError, match="measure_latency: got 1, expected something like False"):
        TARGET.require_options('{"measure_latency": 1}')


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_rules_agree_with_the_interpreter(name: str, shared: Path) -> None:
    tflite = (shared / "models" / f"{name}.tflite").read_bytes()
    target = load_target("cpu")
    assert target.compile(tflite).report.ops == TARGET.report(tflite, target.inspect(tflite)).ops


@pytest.mark.slow
def test_compile_reports_when_the_interpreter_does_not_end(shared: Path) -> None:
    tflite = (shared / "models" / "mlperf_tiny/pretrainedResnet_quant.tflite").read_bytes()
    started = time.monotonic()
    model = TARGET.compile(tflite, options='{"measure_latency": true, "runs": 100000000, "timeout_sec": 15}')
    assert time.monotonic() - started < 60
    assert model.tflite == tflite
    (problem,) = model.report.problems
    assert problem.startswith("nothing is measured: the interpreter did not end within 15 s, with 1 threads on ")


@pytest.mark.slow
def test_compile_reports_when_the_file_ends_the_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A signal in the process that asks, as of a file that TFLite's checks let through.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nif sys.orig_argv[3:5] == ['-m', 'components.targets.cpu.asking']:\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    report = TARGET.compile(chain("RELU")).report
    assert "nothing is measured: the interpreter crashed on this file: SIGSEGV" in report.problems[0]


def test_options_are_refused_when_a_number_is_given_as_text() -> None:
    with pytest.raises(ValueError, match="threads: got '2', expected something like 1"):
        CpuOptions(threads="2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout_sec: got 99999999999, expected at most 604800, a week"):
        CpuOptions(timeout_sec=99_999_999_999)
