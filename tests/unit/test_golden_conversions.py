"""Every architecture becomes integers by training, by calibration, and with 16-bit activations where that is legal."""

import collections
import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from components.quantization import audit, convert, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.interpreter import IntegerModel
from components.quantization.qat.calibration import calibrate
from components.quantization.surgery.prepare import prepare

from architecture_cases import ARCHITECTURES

pytestmark = pytest.mark.extended

GOLDEN = Path(__file__).parent.parent / "goldens" / "conversions.json"
_EXAMPLES = 16
_VOCABULARY = 20
# Of the worst output against the float model, with random weights.
_LEAST_DB = {"trained": 15.0, "calibrated": 15.0, "int16x8": 35.0}
# What is calibrated only when it is unrolled.
_LOOPS = (tf_keras.layers.GRU, tf_keras.layers.SimpleRNN)

Examples = dict[str, Any]


@pytest.mark.parametrize("how", _LEAST_DB)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_conversion_has_golden_ops_and_is_close_to_floats(
    architecture: str, how: str, request: pytest.FixtureRequest
) -> None:
    model, examples = _built(architecture)
    profile = "cpu" if how == "int16x8" else "edge_tpu"
    try:
        tflite = _converted(model, examples, how, profile)
    except ValueError as error:
        found: Any = f"refused: {str(error).splitlines()[0]}"
    else:
        found = _ops(tflite)
        assert audit(tflite, profile).offenders == ()
        assert _sqnr_db(model, tflite, examples) >= _LEAST_DB[how]
    if request.config.getoption("--update-goldens"):
        _update(architecture, how, found)
    assert found == _read().get(architecture, {}).get(how)


@functools.cache
def _built(architecture: str) -> tuple[tf_keras.Model, Examples]:
    """The model with random weights and the statistics of its examples."""
    tf_keras.utils.set_random_seed(1)
    model = ARCHITECTURES[architecture]()
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if not np.any(weight.numpy()):
            weight.assign(random.normal(scale=0.1, size=weight.shape))
    examples = {
        name: random.integers(0, _VOCABULARY, (_EXAMPLES, *spec.shape[1:])).astype(np.int32)
        if spec.dtype == "int32"
        else random.normal(size=(_EXAMPLES, *spec.shape[1:])).astype(np.float32)
        for name, spec in zip(model.input_names, model.inputs, strict=True)
    }
    for _ in range(200):  # of moving averages
        model(_fed(model, examples), training=True)
    return model, examples


def _fed(model: tf_keras.Model, examples: Examples) -> Any:
    return examples if len(model.input_names) > 1 else examples[model.input_names[0]]


def _converted(model: tf_keras.Model, examples: Examples, how: str, profile: str) -> bytes:
    if how == "trained":
        quantized = quantize_model(model)
        calibrate(quantized, [examples])
        return convert(quantized, representative_dataset=[examples], profile=profile)
    scheme = "full_int8" if how == "calibrated" else how
    if any(isinstance(layer, _LOOPS) for layer in model.layers):
        model = prepare(model).model
    return convert(model, scheme, [examples], profile)


def _ops(tflite: bytes) -> dict[str, int]:
    return dict(sorted(collections.Counter(op.code for op in flatbuffer.read_subgraphs(tflite)[0].ops).items()))


def _sqnr_db(model: tf_keras.Model, tflite: bytes, examples: Examples) -> float:
    floats = model(_fed(model, examples), training=False)
    floats = dict(zip(model.output_names, floats if isinstance(floats, list) else [floats], strict=True))
    integers = IntegerModel(tflite).predict(examples)
    return min(_db(value.numpy(), integers[name]) for name, value in floats.items())


def _db(signal: Any, noisy: Any) -> float:
    noise = float(np.sum((signal - noisy) ** 2))
    return 10.0 * math.log10(float(np.sum(signal**2)) / noise) if noise else math.inf


def _read() -> dict[str, dict[str, Any]]:
    golden: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    return golden


def _update(architecture: str, how: str, found: Any) -> None:
    golden = _read()
    golden.setdefault(architecture, {})[how] = found
    temporary = GOLDEN.with_suffix(".new")
    temporary.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, GOLDEN)
