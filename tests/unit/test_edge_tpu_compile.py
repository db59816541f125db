"""Compilations as a user sees them: with the double, and as they are with the real compiler if a variable names it.

TFX_QAT_EDGETPU_COMPILER=/usr/bin/edgetpu_compiler make test-fast
"""

import json
from pathlib import Path

import jsonschema
import pytest

from components.quantization.conversion import flatbuffer
from components.targets import CompileError, load_target, report_schema
from components.targets._compiled_file import compiled_parts, ops_on_target
from components.targets.edge_tpu import CompilerOptions
from components.targets.edge_tpu.group import GroupMember

from edge_tpu_compilers import knowing, real_compiler, sha256

TARGET = load_target("edge_tpu")


@pytest.fixture
def options(shared: Path, tmp_path: Path) -> str:
    compiler = real_compiler() or knowing(tmp_path / "double", shared).path
    return CompilerOptions(compiler=str(compiler)).to_json()


def _model(shared: Path, name: str) -> bytes:
    return (shared / "edgetpu" / "models" / f"{name}.tflite").read_bytes()


@pytest.mark.parametrize(
    ("name", "ops_on_cpu"),
    [
        ("mobilenet_v1_0.25_128_quant", 0),
        ("keras_lstm_mnist_ptq", 0),
        ("posenet_mobilenet_v1_075_353_481_quant_decoder", 1),
        ("deeplabv3_mnv2_dm05_pascal_quant", 7),
    ],
)
def test_report_agrees_with_model_file_and_log(shared: Path, options: str, name: str, ops_on_cpu: int) -> None:
    tflite = _model(shared, name)
    model = TARGET.compile(tflite, "fail", options)
    report = model.report
    ops = len(flatbuffer.read_subgraphs(tflite)[0].ops)
    assert report.compiled
    assert report.tool.startswith("edgetpu_compiler ")
    assert compiled_parts(model.tflite, "edgetpu-custom-op")
    assert (report.ops_on_target, report.ops_on_cpu) == (ops - ops_on_cpu, ops_on_cpu)
    assert report.on_target is not None
    assert report.on_cpu is not None
    assert (report.on_target.ops, report.on_cpu.ops) == (ops - ops_on_cpu, ops_on_cpu)
    assert report.on_target.macs
    assert report.problems == ()
    assert report.subgraphs == 1
    assert "Compilation succeeded!" in report.log or report.tool_version < "16"
    jsonschema.validate(json.loads(report.to_json()), report_schema())


def test_report_names_the_first_op_that_ends_the_edge_tpus_part(shared: Path, options: str) -> None:
    report = TARGET.compile(_model(shared, "deeplabv3_mnv2_dm05_pascal_quant"), "fail", options).report
    breaking = report.first_breaking_op
    assert breaking is not None
    assert (breaking.index, breaking.op) == (63, "RESIZE_BILINEAR")
    assert breaking.status
    assert breaking.edit
    assert report.on_cpu is not None
    assert report.on_cpu.macs
    assert (
        TARGET.compile(_model(shared, "mobilenet_v1_0.25_128_quant"), "fail", options).report.first_breaking_op is None
    )


def test_report_has_the_table_when_only_the_operation_log_has_it(shared: Path, options: str) -> None:
    quiet = json.dumps({**json.loads(options), "show_operations": False})
    tflite = _model(shared, "mobilenet_v1_0.25_128_quant")
    assert TARGET.compile(tflite, "fail", quiet).report.ops_on_target == 31


def test_memory_is_that_of_the_log(shared: Path, options: str) -> None:
    memory = TARGET.compile(_model(shared, "mobilenet_v1_0.5_160_quant"), "fail", options).report.memory
    assert memory.cached_bytes is not None
    assert 1e6 < memory.cached_bytes < 2e6
    assert memory.streamed_bytes is not None
    assert memory.arena_bytes is None


def test_models_that_are_compiled_together_are_files_of_one_group(shared: Path, options: str) -> None:
    members = [
        GroupMember(name=name[:17].replace(".", "_"), tflite=_model(shared, name))
        for name in ("mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.5_160_quant")
    ]
    found = TARGET.compile_group(members, options)
    assert set(found.models) == {member.name for member in members}
    assert all(compiled_parts(model.tflite, "edgetpu-custom-op") for model in found.models.values())
    assert found.traffic_bytes_per_second is not None
    assert len(found.orders) == 2


def test_compile_raises_when_the_file_is_no_model_to_the_compiler(shared: Path, options: str) -> None:
    content = flatbuffer.read_object(_model(shared, "mobilenet_v1_0.25_128_quant"))
    content.operatorCodes[0].version = 99
    with pytest.raises(CompileError) as raised:
        TARGET.compile(flatbuffer.write_object(content), "fail", options)
    assert raised.value.kind in ("op_version", "not_parsed")
    assert raised.value.log


def test_compiler_version_has_the_version_and_what_tells_builds_apart(options: str) -> None:
    version, digest = TARGET.compiler_version(options).split()
    assert version.count(".") == 2
    assert len(digest) == 64


def test_ops_on_tpu_are_those_of_every_whole_pair(shared: Path) -> None:
    folder = shared / "edgetpu"
    pairs = {pair["source_sha256"]: pair for pair in json.loads((folder / "oracle.json").read_text())["pairs"]}
    compiled = sorted((folder / "models").glob("*_edgetpu.tflite"))
    assert len(compiled) == 6
    for path in compiled:
        tflite = path.with_name(path.name.replace("_edgetpu", "")).read_bytes()
        expected = pairs[sha256(tflite)]["cpu_indices"]
        found = ops_on_target(tflite, path.read_bytes(), "edgetpu-custom-op")
        assert found is not None
        assert [index for index, there in enumerate(found) if not there] == expected
