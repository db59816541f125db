"""Compilations by the real Vela: of the digits model, of MLPerf Tiny's, and of the architectures that are trained."""

import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from sklearn.datasets import load_digits

from components.quantization import audit, convert, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.qat.calibration import calibrate
from components.targets import CompiledModel, CompileError, load_target, report_schema
from components.targets._compiled_file import compiled_parts
from components.targets.ethos_u import VelaOptions, ops
from pipelines import tasks

from architecture_cases import ARCHITECTURES
from vela_program import require_equal_to_csv, require_vela

pytestmark = pytest.mark.slow

TARGET = load_target("ethos_u")
# With the NPU that each is compiled for.
_TINY = {"pretrainedResnet_quant": "ethos-u65-512", "kws_ref_model": "ethos-u85-256"}
_ARCHITECTURES = ("autoencoder", "convolutions", "depthwise_separable", "mixer", "two_towers")


@pytest.fixture(scope="module")
def vela() -> str:
    return require_vela()


@functools.cache
def _model(name: str) -> bytes:
    """An integer model for Ethos-U by name: "digits" or an architecture."""
    if name == "digits":
        images = (load_digits().images[:32, :, :, None] / 16.0).astype(np.float32)
        model = tasks.load_task("digits").build_model({})
        return convert(model, representative_dataset=[{model.input_names[0]: images}], profile="ethos_u")
    model = ARCHITECTURES[name]()
    random = np.random.default_rng(1)
    examples = {
        name: random.normal(size=(8, *spec.shape[1:])).astype(np.float32)
        for name, spec in zip(model.input_names, model.inputs, strict=True)
    }
    quantized = quantize_model(model)
    calibrate(quantized, [examples])
    return convert(quantized, representative_dataset=[examples], profile="ethos_u")


def _compile(tflite: bytes, vela: str, directory: Path, **options: Any) -> CompiledModel:
    return TARGET.compile(tflite, "fail", VelaOptions(compiler=vela, **options).to_json(), directory)


def _require_whole_on_npu(model: CompiledModel, tflite: bytes) -> None:
    report = model.report
    assert report.compiled
    assert report.tool.startswith("Vela ")
    assert (report.ops_on_target, report.ops_on_cpu) == (len(flatbuffer.read_subgraphs(tflite)[0].ops), 0)
    assert report.first_breaking_op is None
    assert report.problems == ()
    assert report.subgraphs == compiled_parts(model.tflite, "ethos-u") == 1
    assert "CPU operators = 0 " in report.log
    before, after = (
        {offender.rule for offender in audit(content, profile="ethos_u").offenders}
        for content in (tflite, model.tflite)
    )
    assert after <= before
    jsonschema.validate(json.loads(report.to_json()), report_schema())


@pytest.mark.parametrize("name", ["digits", *_ARCHITECTURES])
def test_compile_leaves_nothing_to_the_cpu_when_a_conversion_is_ours(vela: str, tmp_path: Path, name: str) -> None:
    tflite = _model(name)
    assert audit(tflite, profile="ethos_u").offenders == ()
    model = _compile(tflite, vela, tmp_path, accelerator_config="ethos-u55-128")
    _require_whole_on_npu(model, tflite)
    require_equal_to_csv(json.loads(model.report.to_json()), tmp_path)
    assert TARGET.inspect(tflite).on_cpu == 0


@pytest.mark.parametrize(("name", "accelerator"), _TINY.items())
def test_compile_leaves_nothing_to_the_cpu_when_the_model_is_of_mlperf_tiny(
    vela: str, shared: Path, tmp_path: Path, name: str, accelerator: str
) -> None:
    tflite = (shared / "models" / "mlperf_tiny" / f"{name}.tflite").read_bytes()
    model = _compile(tflite, vela, tmp_path, accelerator_config=accelerator)
    _require_whole_on_npu(model, tflite)
    require_equal_to_csv(json.loads(model.report.to_json()), tmp_path)


def test_compile_needs_more_cycles_and_less_memory_when_it_optimises_for_size(
    vela: str, shared: Path, tmp_path: Path
) -> None:
    tflite = (shared / "models" / "mlperf_tiny" / "kws_ref_model.tflite").read_bytes()
    fast, small = (
        _compile(tflite, vela, tmp_path / optimise, accelerator_config="ethos-u55-32", optimise=optimise).report
        for optimise in ("Performance", "Size")
    )
    assert small.memory.arena_bytes is not None
    assert fast.memory.arena_bytes is not None
    assert small.memory.arena_bytes <= fast.memory.arena_bytes
    assert small.measurements["cycles"] >= fast.measurements["cycles"]


def test_report_has_velas_reason_when_an_op_stays_on_the_cpu(vela: str, shared: Path, tmp_path: Path) -> None:
    name = "posenet_mobilenet_v1_075_353_481_quant_decoder.tflite"
    tflite = (shared / "edgetpu" / "models" / name).read_bytes()
    report = _compile(tflite, vela, tmp_path).report
    assert (report.ops_on_target, report.ops_on_cpu) == (32, 1)
    assert "CPU operators = 1 " in report.log
    breaking = report.first_breaking_op
    assert breaking is not None
    assert (breaking.index, breaking.op, breaking.status) == (32, "CUSTOM PosenetDecoderOp", "Unsupported opType")
    assert breaking.edit
    assert TARGET.inspect(tflite).on_cpu == 1


def test_compile_raises_when_nothing_is_on_the_npu_as_of_a_float_model(vela: str, shared: Path, tmp_path: Path) -> None:
    tflite = (shared / "models" / "mlperf_tiny" / "pretrainedResnet.tflite").read_bytes()
    with pytest.raises(CompileError, match="Vela put no op on the NPU: .* exited with 0. To do: ") as found:
        _compile(tflite, vela, tmp_path)
    assert found.value.kind == "nothing_mapped"
    assert "unsupported DataType Float32" in found.value.log


def test_compile_says_what_to_do_when_vela_refuses_the_configuration(vela: str, tmp_path: Path, shared: Path) -> None:
    own = tmp_path / "own.ini"
    own.write_text("[System_Config.Board]\ncore_clock=100e6\naxi0_port=Sram\naxi1_port=OffChipFlash\n")
    options = {"config_file": str(own), "system_config": "Board", "memory_mode": "Missing"}
    tflite = (shared / "models" / "mlperf_tiny" / "kws_ref_model.tflite").read_bytes()
    with pytest.raises(CompileError, match="Section Memory_Mode.Missing not found") as raised:
        _compile(tflite, vela, tmp_path / "log", **options)
    assert raised.value.kind == "config"
    assert "To do: see accelerator_config" in str(raised.value)
    assert (tmp_path / "log" / "attempt_1.txt").read_text() == raised.value.log


def _documented(report: str, npu: str) -> dict[str, str]:
    """Vela's ops of an NPU, each with the constraints of its own, as its report of supported ops has them."""
    table = report.partition(f"## {npu} TFLite Summary Table")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([A-Z]\w+) \|", table, re.MULTILINE)
    return {
        op: report.partition(f"### {npu} TFLite {op} Constraints")[2].partition("\n#")[0]
        for op in found
        if op != "Operator"  # the table's head
    }


def test_ops_are_those_that_vela_documents(vela: str, tmp_path: Path) -> None:
    subprocess.run([vela, "--supported-ops-report"], cwd=tmp_path, check=True, capture_output=True)
    report = (tmp_path / "SUPPORTED_OPS.md").read_text()
    small, large = _documented(report, "Ethos-U55 and Ethos-U65"), _documented(report, "Ethos-U85")
    assert (set(small), set(large)) == (ops.OPS, ops.OPS_OF_U85)
    wide = {op for op, constraints in small.items() if "32-bit feature-maps are not supported" not in constraints}
    assert wide == ops.OF_32_BITS


def test_compiler_version_is_velas_own(vela: str) -> None:
    assert TARGET.compiler_version(VelaOptions(compiler=vela).to_json()).count(".") == 2


def test_compile_runs_the_package_when_the_compiler_is_a_python(vela: str, shared: Path, tmp_path: Path) -> None:
    python = Path(vela).parent / "python"
    if not python.is_file():
        pytest.skip(f"{vela} has no Python beside it")
    tflite = (shared / "models" / "mlperf_tiny" / "kws_ref_model.tflite").read_bytes()
    report = _compile(tflite, str(python), tmp_path).report
    assert report.attempts[0].command[1:3] == ("-m", "ethosu.vela")
    assert report.compiled
