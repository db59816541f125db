"""Rescaling, Normalization and arithmetic on a model's input: merged, and folded into the first weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras

from components.quantization import convert, parity, plan, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.qat.layers import QuantizedWeights
from components.quantization.surgery.graph import calls
from components.quantization.surgery.prepare import prepare

pytestmark = pytest.mark.slow

K = tf_keras.layers
Step = Callable[[Any], Any]


def _model(*steps: Step, shape: tuple[int, ...] = (8, 8, 3)) -> tf_keras.Model:
    x = inputs = tf_keras.Input(shape, name="pixels")
    for step in steps:
        x = step(x)
    return tf_keras.Model(inputs, x)


def _ops(tflite: bytes) -> list[str]:
    return [op.code for op in flatbuffer.read_subgraphs(tflite)[0].ops]


def _imagenet() -> Step:
    return K.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.0524, 0.0502, 0.0506])  # type: ignore[no-any-return]


def _batch_statistics() -> Step:
    return K.BatchNormalization(momentum=0.0)  # type: ignore[no-any-return]


# Steps on the input, the layer behind them, and the ops of the integer model.
_CASES: dict[str, tuple[list[Step], Step, list[str]]] = {
    "Rescaling, padded": ([K.Rescaling(1 / 255)], K.Conv2D(4, 3, padding="same"), ["CONV_2D"]),
    "Rescaling with an offset": ([K.Rescaling(1 / 127.5, -1)], K.Conv2D(4, 3), ["CONV_2D"]),
    "Rescaling and Normalization": ([K.Rescaling(1 / 255), _imagenet()], K.Conv2D(4, 3), ["CONV_2D"]),
    "depthwise": ([K.Rescaling(1 / 127.5, -1)], K.DepthwiseConv2D(3, depth_multiplier=2), ["DEPTHWISE_CONV_2D"]),
    "operators": ([lambda x: x / 255.0, lambda x: 1.0 - x], K.Dense(4), ["FULLY_CONNECTED"]),
    # Zeros around the rescaled image are no zeros of the pixels.
    "offset, padded": (
        [K.Rescaling(1 / 127.5, -1)],
        K.Conv2D(4, 3, padding="same"),
        ["DEPTHWISE_CONV_2D", "CONV_2D"],
    ),
    # Weights that share a scale would be 100 times as large for one channel as for another.
    "unequal channels": (
        [K.Normalization(mean=[0.0, 0.0, 0.0], variance=[1.0, 1.0, 1e4])],
        K.Conv2D(4, 3),
        ["DEPTHWISE_CONV_2D", "CONV_2D"],
    ),
}


@pytest.mark.extended
@pytest.mark.parametrize("behind", [[], [_batch_statistics, K.ReLU]], ids=["alone", "normalized"])
@pytest.mark.parametrize("scheme", ["full_int8", "full_int8_per_tensor"])
@pytest.mark.parametrize("case", _CASES)
def test_arithmetic_on_the_input_is_part_of_the_weights_when_they_can_take_it(
    case: str, scheme: str, behind: list[Any]
) -> None:
    steps, layer, ops = _CASES[case]
    model = _model(*steps, type(layer).from_config(layer.get_config()), *(make() for make in behind))  # type: ignore[attr-defined]
    pixels = np.random.default_rng(1).uniform(0.0, 255.0, (8, 8, 8, 3)).astype(np.float32)
    model(pixels, training=True)
    quantized = quantize_model(model, scheme)
    quantized.compile(tf_keras.optimizers.legacy.SGD(0.0), "mse", run_eagerly=True)
    expected = model(pixels, training=False).numpy()
    quantized.train_on_batch(pixels, expected)
    tflite = convert(quantized, scheme)
    assert [op for op in _ops(tflite) if op != "RESHAPE"] == ops
    found = parity(quantized, tflite, [pixels])
    assert found.first_over(1.01 if len(ops) == 1 else 5.01) is None, str(found)
    error = np.abs(quantized(pixels, training=False).numpy() - expected).max() / np.ptp(expected)
    assert error < 0.05
    entry = flatbuffer.read_subgraphs(tflite)[0]
    # The device still takes pixels: 255 of them are 255 steps of 1.
    assert entry.tensors[entry.inputs[0]].scale[0] == pytest.approx(1.0, abs=0.01)


def test_training_moves_the_weights_in_their_own_units_when_a_gain_is_folded_in() -> None:
    layer = K.Dense(2, name="dense", use_bias=False)
    quantized = quantize_model(_model(K.Rescaling(1 / 255), layer, shape=(4,)))
    wrapper = quantized.get_layer("dense_values")
    assert isinstance(wrapper, QuantizedWeights)
    before = wrapper.layer.kernel.numpy()
    np.testing.assert_allclose(before, layer.kernel.numpy())
    quantized.compile(tf_keras.optimizers.legacy.Adam(1e-3), "mse")
    pixels = np.random.default_rng(1).uniform(0.0, 255.0, (64, 4)).astype(np.float32)
    quantized.train_on_batch(pixels, np.full((64, 2), 9.0, np.float32))
    np.testing.assert_allclose(np.abs(wrapper.layer.kernel.numpy() - before), 1e-3, rtol=1e-3)
    assert [weight.name for weight in quantized.trainable_weights] == [wrapper.layer.kernel.name]


def test_quantized_model_survives_saving_when_arithmetic_is_folded_in(tmp_path: Any) -> None:
    quantized = quantize_model(_model(K.Rescaling(1 / 127.5, -1), K.Conv2D(4, 3), K.ReLU()))
    quantized.compile("sgd", "mse")
    pixels = np.random.default_rng(1).uniform(0.0, 255.0, (4, 8, 8, 3)).astype(np.float32)
    quantized.train_on_batch(pixels, np.zeros((4, 6, 6, 4), np.float32))
    quantized.save(tmp_path / "model")
    loaded = tf_keras.models.load_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded(pixels), quantized(pixels))


def test_plan_says_where_arithmetic_on_the_input_goes() -> None:
    tf_keras.backend.clear_session()
    rows = {
        (row.name, row.action): row.reason
        for row in plan(_model(K.Rescaling(1 / 255), _imagenet(), K.Conv2D(4, 3, name="stem"))).layers
    }
    assert rows["normalization", "fold"] == "into stem"
    assert rows["normalization", "rewrite"] == "merge arithmetic on the input"


def test_chain_ends_when_something_else_looks_into_it() -> None:
    x = inputs = tf_keras.Input((4,), name="x")
    half = x * 0.5
    model = tf_keras.Model(inputs, [K.Dense(2)(half + 1.0), K.Dense(2)(half)])
    kinds = [type(call.layer).__name__ for call in calls(prepare(model).model)]
    assert sorted(kinds) == ["ChannelAffine", "Dense", "Dense", "TFOpLambda"]


def test_constant_that_makes_channels_is_no_gain_of_the_input() -> None:
    model = _model(lambda x: x - np.array([1.0, 2.0, 3.0], np.float32), K.Conv2D(2, 3), shape=(8, 8, 1))
    assert [type(call.layer).__name__ for call in calls(prepare(model).model)] == ["TFOpLambda", "Conv2D"]
