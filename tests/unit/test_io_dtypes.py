from typing import Any

import pytest

from components.quantization.conversion import io_dtypes
from components.quantization.schemes import QuantizationScheme, load_scheme
from pipelines.config import PipelineConfig
from pipelines.configs import load_config


@pytest.mark.parametrize("asked", ["uint8", {"image": "uint8", "scores": "float32"}])
def test_text_holds_what_was_asked_for(asked: Any) -> None:
    assert io_dtypes.from_text(io_dtypes.as_text(asked)) == asked


@pytest.mark.parametrize("asked", [None, ""])
def test_text_is_empty_when_the_usual_type_is_asked_for(asked: Any) -> None:
    assert io_dtypes.as_text(asked) == ""
    assert io_dtypes.from_text("") is None


@pytest.mark.parametrize(
    ("asked", "scheme", "message"),
    [
        ("int16", "full_int8", "got 'int16', expected one of int8, uint8 with scheme 'full_int8'"),
        ({"image": "uint8", "scores": "int16"}, "full_int8", "got 'int16', expected one of int8, uint8"),
        ({"image": "uint8"}, "int16x8", "got 'uint8', expected one of int16 with scheme 'int16x8'"),
        ("int3", None, "got 'int3', expected one of int8, uint8, int16, float32"),
    ],
)
def test_require_raises_when_a_type_fits_no_model_of_the_scheme(asked: Any, scheme: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io_dtypes.require(asked, load_scheme(scheme) if scheme else None)


@pytest.mark.parametrize("scheme", ["full_int8", "int16x8", QuantizationScheme(name="any")])
def test_require_takes_floats_of_any_scheme(scheme: Any) -> None:
    io_dtypes.require({"image": "float32"}, load_scheme(scheme))
    io_dtypes.require("float32", None)


def _config(**changes: Any) -> PipelineConfig:
    return PipelineConfig(**{"name": "mine", "task": "digits", "label_key": "label", "root": "runs/mine", **changes})


def test_config_takes_types_by_name_and_refuses_those_of_another_width() -> None:
    assert _config(io_dtype={"image": "float32"}).io_dtype == {"image": "float32"}
    with pytest.raises(ValueError, match="io_dtype: got 'int16', expected one of int8, uint8"):
        _config(io_dtype={"image": "int16"})


def test_config_keeps_conversions_under_a_local_root_alone() -> None:
    assert load_config("digits").conversion_cache == "runs/digits/conversions"
    assert _config(root="gs://bucket/mine").conversion_cache == ""
    assert _config(root="gs://bucket/mine", conversion_cache_dir="/cache").conversion_cache == "/cache"
    with pytest.raises(
        ValueError, match=r"attribution_examples=-1 .*; latency_runs=-1 \(at least 0\); conversion_cache_dir 's3"
    ):
        _config(attribution_examples=-1, latency_runs=-1, conversion_cache_dir="s3://b/c")
