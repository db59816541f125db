from pathlib import Path

import pytest

from components.quantization import convert
from components.targets import load_target

import small_models as models

TARGET = load_target("edge_tpu")


@pytest.fixture(scope="module")
def tflite() -> bytes:
    return convert(models.convolutional(), representative_dataset=[models.images(4)])


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
