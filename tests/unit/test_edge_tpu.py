import gzip
import json
import os
import stat
from pathlib import Path

import pytest

from components.quantization import convert
from components.targets import CompileError, edge_tpu, load_target

import small_models as models

TARGET = load_target("edge_tpu")


def _install(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a stand-in for the proprietary compiler on PATH."""
    compiler = directory / edge_tpu.COMPILER
    compiler.write_text("#!/bin/bash\n" + script)
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def tflite() -> bytes:
    return convert(models.convolutional(), representative_dataset=[models.images(4)])


@pytest.mark.slow
def test_inspect_agrees_with_compiled_models(shared: Path) -> None:
    folder = shared / "edgetpu"
    pairs = [
        pair for pair in json.loads((folder / "oracle.json").read_text())["pairs"] if not pair["multiple_subgraphs"]
    ]
    exact = ops = right = 0
    for pair in pairs:
        mapping = TARGET.inspect(gzip.decompress((folder / pair["skeleton"]).read_bytes()))
        cpu = {op.index for op in mapping.ops if not op.on_target}
        wrong = cpu ^ set(pair["cpu_indices"])
        exact += not wrong
        ops += len(mapping.ops)
        right += len(mapping.ops) - len(wrong)
    assert len(pairs) > 200
    assert exact / len(pairs) >= 0.95
    assert right / ops >= 0.98


@pytest.mark.slow
def test_inspect_maps_everything_when_all_ops_are_supported(tflite: bytes) -> None:
    mapping = TARGET.inspect(tflite)
    assert [op.op for op in mapping.ops] == ["CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
    assert {op.status for op in mapping.ops} == {"Mapped to Edge TPU"}
    assert (mapping.on_target, mapping.on_cpu) == (5, 0)


@pytest.mark.slow
def test_compile_analyses_and_passes_the_model_on_when_the_compiler_is_missing(
    tflite: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    model = TARGET.compile(tflite)
    assert model.tflite == tflite
    assert not model.report.compiled
    assert model.report.tool == "static analysis"
    assert (model.report.ops_on_target, model.report.ops_on_cpu) == (5, 0)


def test_compile_raises_when_the_compiler_is_missing_and_must_not_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match="edgetpu_compiler is not on PATH; install it"):
        TARGET.compile(b"", when_missing="fail")


def test_compile_reports_what_the_compiler_said(shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shared / "edgetpu" / "models"
    log = (
        "Edge TPU Compiler version 16.0.384591198\nModel compiled successfully in 1524 ms.\n\n"
        "Operator                       Count      Status\n\n"
        "CONV_2D                        15         Mapped to Edge TPU\n"
        "SOFTMAX                        1          Operation is otherwise supported, but not mapped due to some"
        " unspecified limitation\nCompilation succeeded! \n"
    )
    (tmp_path / "log").write_text(log)
    compiled = folder / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    # Replays a real compiled file: the compiler cannot be redistributed.
    _install(tmp_path, f'cp {compiled} "$3/model_edgetpu.tflite"; cat {tmp_path}/log', monkeypatch)
    model = TARGET.compile((folder / "mobilenet_v1_0.25_128_quant.tflite").read_bytes(), when_missing="fail")
    assert model.tflite == compiled.read_bytes()
    assert model.report.compiled
    assert model.report.tool == "edgetpu_compiler 16.0.384591198"
    assert (model.report.ops_on_target, model.report.ops_on_cpu) == (15, 1)
    assert model.report.log == log
    assert TARGET.compiler_version() != ""


@pytest.mark.parametrize(
    "script",
    [
        "echo 'Internal compiler error. Aborting!'; exit 1",
        "echo 'Model compiled successfully in 3 ms.'",
        'echo "Model compiled successfully in 3 ms."; echo unmapped > "$3/model_edgetpu.tflite"',
    ],
    ids=["crash", "no output", "nothing mapped"],
)
def test_compile_raises_with_the_last_lines_when_there_is_no_compiled_op(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _install(tmp_path, script, monkeypatch)
    with pytest.raises(CompileError, match=r"(?s)--show_operations.*exited with \d.*(Aborting|compiled successfully)"):
        TARGET.compile(b"model")


def test_compile_stops_the_compiler_and_its_children_when_it_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _install(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait", monkeypatch)
    monkeypatch.setattr(edge_tpu, "_TIMEOUT_S", 0.5)
    with pytest.raises(CompileError, match="did not end within"):
        TARGET.compile(b"model")
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_parse_operations_reads_real_logs(shared: Path) -> None:
    logs = sorted((shared / "edgetpu" / "logs").glob("*.log"))
    compared = 0
    for log in logs:
        parsed = [m for m in json.loads(log.with_suffix(".json").read_text())["models"] if m.get("has_table")]
        rows = edge_tpu.parse_operations(log.read_text(errors="replace"))
        expected = [tuple(row) for model in parsed for row in model["rows"]]
        assert [(row.op, row.count, row.status) for row in rows] == expected, log
        compared += bool(expected)
    assert compared > 100
