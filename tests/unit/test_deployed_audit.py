"""The audit of a file as it is deployed, whose float edges were asked for."""

from typing import Any

import numpy as np
import pytest
import tf_keras

from components.quantization import audit, convert
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.deployed_audit import audit_deployed
from components.quantization.schemes import load_scheme

import small_models as models

pytestmark = pytest.mark.slow
_SCHEME = load_scheme("full_int8")


@pytest.fixture(scope="module")
def float_edges() -> bytes:
    return convert(models.trained_with_fake_quantization(), io_dtype="float32")


def test_float_edges_are_notes_when_they_were_asked_for(float_edges: bytes) -> None:
    asked = {"image": "float32", "probabilities": "float32"}
    found = audit_deployed(float_edges, "edge_tpu", _SCHEME, asked, {})
    assert (found.offenders, found.integer_only) == ((), True)
    edges = [note for note in found.notes if note.fix == "nothing: it was asked for"]
    assert [(note.rule, note.op, note.tensor) for note in edges] == [
        ("float-edge", "input", "image"),
        ("float-edge", "output", "probabilities"),
        ("float-tensor", "QUANTIZE", "image"),
        ("dequantize", "DEQUANTIZE", ""),
        ("float-tensor", "DEQUANTIZE", "probabilities"),
    ]


@pytest.mark.parametrize(
    ("asked", "offenders"),
    [({}, {"image", "probabilities", ""}), ({"image": "float32"}, {"probabilities", ""})],
)
def test_float_edges_are_offenders_when_nobody_asked_for_them(
    float_edges: bytes, asked: dict[str, str], offenders: set[str]
) -> None:
    found = audit_deployed(float_edges, "edge_tpu", _SCHEME, asked, {})
    assert {offender.tensor for offender in found.offenders} == offenders
    assert not found.integer_only


def test_a_float_scheme_stays_what_it_is() -> None:
    tflite = convert(models.dense(), "float16", profile="cpu")
    found = audit_deployed(tflite, "cpu", load_scheme("float16"), {"x": "float32", "y": "float32"}, {})
    assert found == audit(tflite, "cpu", load_scheme("float16"))
    assert not found.integer_only


def _few(model: Any, io_dtype: str, codes: np.ndarray) -> list[str]:
    tflite = convert(model, representative_dataset=[models.images(8)], io_dtype=io_dtype)
    notes = audit_deployed(tflite, "edge_tpu", _SCHEME, {}, {"scores": codes}).notes
    return [note.tensor for note in notes if note.op == "output"]


def _model(activation: str) -> tf_keras.Model:
    flat = tf_keras.layers.Flatten(input_shape=(8, 8, 1))
    return tf_keras.Sequential([flat, tf_keras.layers.Dense(3, activation=activation, name="scores")])


def test_outputs_that_take_few_integers_are_noted_when_there_are_enough_values() -> None:
    constant = np.full((86, 3), -128, np.int8)  # 258 values
    assert _few(_model("linear"), "int8", constant) == ["scores"]
    assert _few(_model("linear"), "int8", constant[:85]) == []  # 255 cannot show that all of 256 integers occur
    every = np.arange(258).clip(0, 255).reshape(86, 3)
    assert _few(_model("linear"), "int8", (every - 128).astype(np.int8)) == []


@pytest.mark.parametrize("io_dtype", ["int8", "uint8"])
def test_outputs_of_a_softmax_are_not_noted_because_its_range_is_prescribed(io_dtype: str) -> None:
    assert _few(_model("softmax"), io_dtype, np.full((86, 3), 0, io_dtype)) == []


def test_ops_at_float_edges_have_the_versions_that_know_16_bits() -> None:
    tflite = convert(models.dense(), "int16x8", [np.eye(3, dtype=np.float32)], "cpu", "float32")
    versions = {op.code: op.version for op in flatbuffer.read_subgraphs(tflite)[0].ops}
    assert (versions["QUANTIZE"], versions["DEQUANTIZE"]) == (2, 3)
