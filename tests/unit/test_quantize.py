import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from components.quantization import audit, convert, parity, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.qat.layers import QuantizedWeights
from components.quantization.schemes import QuantizationScheme
from components.quantization.surgery.prepare import prepare

layers = tf_keras.layers
pytestmark = pytest.mark.slow


def _model(*sequence: Any, shape: tuple[int, ...] = (8, 8, 4)) -> tf_keras.Model:
    return tf_keras.Sequential([layers.InputLayer(shape, name="x"), *sequence])


def _trained(model: tf_keras.Model, scheme: str | QuantizationScheme = "full_int8", steps: int = 3) -> tf_keras.Model:
    tf_keras.utils.set_random_seed(1)
    quantized = quantize_model(model, scheme)
    quantized.compile(tf_keras.optimizers.Adam(1e-4), "mse")
    examples = _examples(quantized)
    quantized.fit(examples, np.zeros((len(examples), *quantized.output_shape[1:])), epochs=steps, verbose=0)
    return quantized


def _examples(model: tf_keras.Model, count: int = 16) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


_WEIGHTED = [layers.Conv2D(6, 3), layers.DepthwiseConv2D(3), layers.Conv2DTranspose(6, 3), layers.Dense(6)]


@pytest.mark.parametrize("scheme", ["full_int8", "full_int8_per_tensor"])
@pytest.mark.parametrize("layer", _WEIGHTED, ids=lambda layer: type(layer).__name__)
def test_training_and_file_have_the_same_scales_and_integers(layer: Any, scheme: str) -> None:
    fresh = type(layer).from_config({**layer.get_config(), "name": "layer"})
    quantized = _trained(_model(fresh, layers.BatchNormalization()), scheme)
    wrapper = next(layer for layer in quantized.layers if isinstance(layer, QuantizedWeights))
    assert isinstance(wrapper, QuantizedWeights)
    # Channels of very different size, one of them turned round: what per-tensor scales are bad at.
    gamma = np.geomspace(1.0, 1e-3, wrapper.normalization.gamma.shape[0])
    wrapper.normalization.gamma.assign(gamma * np.where(np.arange(len(gamma)) == 1, -1.0, 1.0))
    graph = flatbuffer.read_subgraphs(convert(quantized, scheme))[0]
    weights = graph.tensors[graph.ops[0].inputs[1]]
    assert len(weights.scale) == wrapper.scale_count()
    expected = 1 if scheme == "full_int8_per_tensor" or isinstance(layer, layers.Dense) else len(gamma)
    assert len(weights.scale) == expected
    deployed = np.abs(np.asarray(wrapper.deployed_kernel()))
    in_file = np.abs(weights.values.astype(np.float64)) * np.reshape(weights.scale, _along(weights, len(weights.scale)))
    np.testing.assert_allclose(np.sort(in_file.ravel()), np.sort(deployed.ravel()), rtol=1e-5, atol=1e-9)


def _along(weights: flatbuffer.Tensor, scales: int) -> list[int]:
    if scales == 1:
        return [1] * len(weights.shape)
    axis = [index for index, size in enumerate(weights.shape) if size == scales][
        0 if weights.shape[0] == scales else -1
    ]
    return [scales if index == axis else 1 for index in range(len(weights.shape))]


def test_depthwise_channels_spread_wide_keep_their_weights() -> None:
    model = _model(layers.DepthwiseConv2D(3, name="layer"))
    kernel = model.get_layer("layer").depthwise_kernel
    spread = np.geomspace(1.0, 1e-3, 4).reshape(1, 1, 4, 1)
    kernel.assign(np.random.default_rng(1).uniform(-1, 1, kernel.shape) * spread)
    errors = {}
    for scheme in ("full_int8", "full_int8_per_tensor"):
        deployed = np.asarray(quantize_model(model, scheme).get_layer("layer_values").deployed_kernel())
        errors[scheme] = np.max(np.abs(deployed - kernel.numpy()) / spread)
    # Half a step of 1/127 with a scale for each channel; with one for all, the smallest channels vanish.
    assert errors["full_int8"] <= 0.5 / 127 * 1.001
    assert errors["full_int8_per_tensor"] > 0.5


def test_concatenation_of_many_is_not_requantized_in_the_file() -> None:
    inputs = tf_keras.Input((8, 8, 4), name="x")
    feeders = [
        layers.Conv2D(2, 1, activation=f)(inputs) for f in ("relu", None, "relu", None, None, "relu", None, "relu")
    ]
    joined = layers.Concatenate(name="joined")([*feeders, layers.MaxPooling2D(1)(inputs), inputs])
    quantized = _trained(tf_keras.Model(inputs, layers.Conv2D(3, 3)(joined)))
    graph = flatbuffer.read_subgraphs(convert(quantized))[0]
    assert "QUANTIZE" not in {op.code for op in graph.ops}
    concatenation = next(op for op in graph.ops if op.code == "CONCATENATION")
    assert len({graph.tensors[i].scale for i in (*concatenation.inputs, *concatenation.outputs)}) == 1


def test_prescribed_range_is_requantized_once_when_it_feeds_a_concatenation() -> None:
    inputs = tf_keras.Input((8, 8, 4), name="x")
    feeders = [layers.Conv2D(2, 1, activation="sigmoid")(inputs), layers.Conv2D(2, 1)(inputs)]
    quantized = _trained(tf_keras.Model(inputs, layers.Concatenate()(feeders)))
    codes = [op.code for op in flatbuffer.read_subgraphs(convert(quantized))[0].ops]
    assert codes.count("QUANTIZE") == 1
    output = parity(quantized, convert(quantized), [_examples(quantized)]).tensors[-1]
    assert output.name.startswith("output")
    assert output.max_lsb <= 2.0


def test_recurrent_layer_is_calibrated_and_the_rest_trained() -> None:
    model = _model(layers.Dense(6, activation="relu"), layers.LSTM(5), layers.Dense(3, name="y"), shape=(7, 4))
    quantized = _trained(model)
    with pytest.raises(ValueError, match="pass a representative_dataset"):
        convert(quantized, profile="cpu")
    assert audit(convert(quantized, representative_dataset=[_examples(quantized)], profile="cpu")).integer_only


def test_model_that_was_not_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="no range was ever trained for"):
        convert(quantize_model(_model(layers.Dense(3, name="y"))))


def test_layer_left_out_by_the_scheme_is_not_annotated() -> None:
    scheme = QuantizationScheme(name="mine", overrides=(("^second$", "skip"),))
    model = _model(layers.Conv2D(3, 3, name="first"), layers.Conv2D(3, 3, name="second"), layers.Conv2D(3, 3, name="y"))
    kinds = {layer.name: type(layer).__name__ for layer in quantize_model(model, scheme).layers}
    assert kinds["first"] == "QuantizedWeights"
    assert kinds["second"] == "Conv2D"
    assert "second_range" not in kinds


def test_batch_normalization_stays_frozen_when_its_model_was_called_for_inference() -> None:
    base = _model(layers.Conv2D(4, 3), layers.BatchNormalization(name="norm"), layers.ReLU())
    inputs = tf_keras.Input((8, 8, 4), name="image")
    quantized = quantize_model(tf_keras.Model(inputs, layers.Dense(2)(layers.Flatten()(base(inputs, training=False)))))
    norm = next(layer for layer in quantized._flatten_layers() if layer.name.endswith("norm"))
    before = norm.moving_mean.numpy()
    quantized.compile("adam", "mse")
    quantized.fit(_examples(quantized), np.zeros((16, 2)), verbose=0)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_equal_activations_of_one_tensor_are_merged_as_the_converter_does(activation: str) -> None:
    tf_keras.utils.set_random_seed(1)
    x = tf_keras.Input((8, 8, 3), name="x")
    shared = layers.Add()([layers.Conv2D(4, 1)(x), layers.Conv2D(4, 1)(x)])
    one, other = layers.Activation(activation)(shared), layers.Conv2D(4, 1, activation=activation)(shared)
    joined = layers.Concatenate()([one, other])
    again = layers.Activation(activation, name="again")(shared)
    model = tf_keras.Model(x, layers.Add()([layers.Conv2D(2, 1)(joined), layers.Conv2D(2, 1)(again)]))
    rewrites = [rewrite.name for rewrite in prepare(model).rewrites if rewrite.step.startswith("merge")]
    assert rewrites == ["again"]
    quantized = quantize_model(model)
    quantized(_examples(quantized), training=True)
    assert audit(convert(quantized)).integer_only


@pytest.mark.parametrize("joined", ["padding", "concatenation", "pooling, concatenation"])
def test_shared_range_grows_with_the_values_that_reach_it(joined: str) -> None:
    tf_keras.utils.set_random_seed(1)
    x = tf_keras.Input((8, 8, 4), name="x")
    first, second = layers.ReLU(name="first")(layers.Conv2D(4, 1)(x)), layers.Conv2D(4, 1)(x)
    if joined == "padding":
        y = layers.ZeroPadding2D()(first)
    elif joined == "concatenation":
        y = layers.Concatenate()([first, second])
    else:
        y = layers.Concatenate()([layers.MaxPooling2D(2, 1, "same")(first), second])
    quantized = quantize_model(tf_keras.Model(x, layers.Conv2D(2, 1)(y)))
    examples = _examples(quantized)
    shared = next(layer for layer in quantized.layers if layer.name == "first_range")
    quantized(examples, training=True)
    low, high = float(shared.minimum), float(shared.maximum)
    assert (low < 0.0) == (joined != "padding")
    for _ in range(100):
        quantized(3.0 * examples, training=True)
    # More than half of the way to three times the values, if not all of it.
    assert float(shared.minimum) <= 2.0 * low
    assert float(shared.maximum) >= 2.0 * high


def test_ranges_stay_when_frozen_and_move_when_not() -> None:
    quantized = _trained(_model(layers.Dense(3, name="y")))
    quantizers = [layer for layer in quantized.layers if isinstance(layer, FakeQuantize)]
    frozen, moving = quantizers
    frozen.freeze()
    before = [float(layer.maximum) for layer in quantizers]
    quantized.fit(10 * _examples(quantized), np.zeros((16, 8, 8, 3)), verbose=0)
    assert float(frozen.maximum) == before[0]
    assert float(moving.maximum) > before[1]


def test_quantized_model_is_saved_and_loaded_by_a_clean_process(tmp_path: Path) -> None:
    quantized = _trained(_model(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()))
    quantized.save(tmp_path / "saved", save_format="tf")
    np.save(tmp_path / "examples.npy", _examples(quantized))
    script = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from components.quantization.qat.export import load_float_model\n"
        "here = Path(sys.argv[1])\n"
        "model = load_float_model(here / 'saved')\n"
        "np.save(here / 'loaded.npy', model(np.load(here / 'examples.npy'), training=False))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(tmp_path)], check=True, env={**os.environ})
    expected = quantized(np.load(tmp_path / "examples.npy"), training=False).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "loaded.npy"), expected)


def test_int16_activations_are_trained_on_their_symmetric_grid() -> None:
    quantized = _trained(_model(layers.Dense(3, name="y")), "int16x8")
    values = quantized(_examples(quantized), training=False).numpy()
    limit = max(-float(quantized.get_layer("y").minimum), float(quantized.get_layer("y").maximum))
    steps = values / (limit / 32767)
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.01)
