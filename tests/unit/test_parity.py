import math

import numpy as np
import pytest
import tf_keras

from components.quantization import convert, quantize_model
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.qat.parity import parity, weight_scales

import fake_quantized_models
import small_models as models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> tf_keras.Model:
    tf_keras.utils.set_random_seed(1)
    return fake_quantized_models.observe(fake_quantized_models.convolutional(), models.images(50))


@pytest.fixture(scope="module")
def tflite(model: tf_keras.Model) -> bytes:
    return convert(model, profile="cpu")


@pytest.mark.parametrize("kernels", ["reference", "optimized"])
def test_parity_is_within_rounding_when_the_model_is_converted(
    model: tf_keras.Model, tflite: bytes, kernels: str
) -> None:
    found = parity(model, tflite, [models.images(10), models.images(5, seed=2)], kernels=kernels)  # type: ignore[arg-type]
    assert [tensor.name for tensor in found.tensors] == [
        *("image", "relu", "depthwise", "dense", "probabilities"),
        "output probabilities_range",
    ]
    assert found.unmatched == ()
    assert found.examples == 15
    assert found.agreement == {"probabilities_range": 1.0}
    assert found.first_over(2.0) is None
    assert min(tensor.sqnr_db for tensor in found.tensors) > 30
    assert found.tensors[0].max_lsb < 1e-3


@pytest.mark.parametrize(("changed", "first"), [("conv", "relu"), ("depthwise", "depthwise"), ("dense", "dense")])
def test_parity_names_the_first_layer_when_one_differs(tflite: bytes, changed: str, first: str) -> None:
    tf_keras.utils.set_random_seed(1)
    wrong = fake_quantized_models.observe(fake_quantized_models.convolutional(), models.images(50))
    kernel, *rest = wrong.get_layer(changed).get_weights()
    wrong.get_layer(changed).set_weights([np.roll(kernel, 1), *rest])
    over = parity(wrong, tflite, [models.images(5)]).first_over(5.0)
    assert over is not None
    assert over.name == first


def test_parity_finds_a_tensor_when_its_scale_differs(model: tf_keras.Model, tflite: bytes) -> None:
    wider = tf_keras.models.clone_model(model)
    wider.set_weights(model.get_weights())
    wider.get_layer("depthwise_range").set_range(-0.1, 0.1)
    found = parity(wider, tflite, [models.images(5)])
    assert found.unmatched == ()
    over = found.first_over(2.0)
    assert over is not None
    assert over.name == "depthwise"


def test_parity_of_an_output_is_counted_in_its_steps() -> None:
    x = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(x, FakeQuantize(name="y")(x))
    model.get_layer("y").set_range(-1.28, 1.27)
    tflite = convert(model, profile="cpu")
    model.get_layer("y").set_range(-12.8, 12.7)
    found = parity(model, tflite, [np.array([[0.0, 0.5, 1.0, 2.0]])])
    # 2.0 is 1.27 in the .tflite, of steps of 0.01: 73 of them away. Squares: 5.25 and 0.73^2.
    assert found.tensors[-1].max_lsb == pytest.approx(73, abs=0.1)
    assert found.tensors[-1].sqnr_db == pytest.approx(10 * math.log10(5.25 / 0.73**2), abs=0.01)
    assert found.agreement == {"y": 1.0}


def test_parity_is_a_table_when_printed(model: tf_keras.Model, tflite: bytes) -> None:
    lines = str(parity(model, tflite, [models.images(2)])).splitlines()
    assert lines[0].split() == ["name", "SQNR", "dB", "max", "LSB", "tensor"]
    assert [line.split()[0] for line in lines[1:6]] == ["image", "relu", "depthwise", "dense", "probabilities"]
    assert lines[-1] == "top-1 agreement of probabilities_range: 100.0%"


def test_parity_takes_packed_weights_and_16_bit_activations() -> None:
    tf_keras.utils.set_random_seed(1)
    images = models.images(50)
    packed = fake_quantized_models.observe(fake_quantized_models.convolutional(4), images)
    tflite = convert(packed, "int4_weights", profile="cpu")
    for kernels in ("reference", "optimized"):
        found = parity(packed, tflite, [images[:5]], kernels=kernels)  # type: ignore[arg-type]
        assert found.first_over(3.0) is None
        assert {weights.dtype for weights in found.weights} == {"INT4"}
    fine = fake_quantized_models.observe(fake_quantized_models.convolutional(8, 16), images)
    found = parity(fine, convert(fine, "int16x8", [images], profile="cpu"), [images[:5]])
    assert min(tensor.sqnr_db for tensor in found.tensors) > 65


def test_parity_begins_each_example_anew_when_the_model_has_a_state() -> None:
    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    stack = [layers.InputLayer((5, 3), name="x"), layers.LSTM(4, name="lstm"), layers.Dense(3, name="y")]
    model = quantize_model(tf_keras.Sequential(stack))
    model.compile("sgd", "mse")
    steps = np.random.default_rng(1).normal(size=(8, 5, 3)).astype(np.float32)
    model.fit(steps, np.zeros((8, 3)), verbose=0)
    tflite = convert(model, "full_int8", [steps], profile="cpu")
    forth, back = (parity(model, tflite, [examples]).tensors for examples in (steps, steps[::-1]))
    assert [tensor.max_lsb for tensor in forth] == [tensor.max_lsb for tensor in back]


def test_weight_scales_are_those_of_training(model: tf_keras.Model, tflite: bytes) -> None:
    found = {weights.op: weights for weights in weight_scales(tflite)}
    assert {op: weights.scales for op, weights in found.items()} == {
        "CONV_2D": 9,
        "DEPTHWISE_CONV_2D": 9,
        "FULLY_CONNECTED": 1,
    }
    assert "conv" in found["CONV_2D"].names
    assert "dense" in found["FULLY_CONNECTED"].names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": []}, "examples: got none"),
        ({"examples": [np.zeros((1, 3))]}, "examples: input 'image' has shape"),
        ({"kernels": "fast"}, "kernels: got 'fast', expected one of reference, optimized"),
    ],
)
def test_parity_raises_when_an_argument_is_wrong(
    model: tf_keras.Model, tflite: bytes, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parity(**{"model": model, "tflite": tflite, "examples": [models.images(1)], **arguments})  # type: ignore[arg-type]


def test_parity_raises_when_the_file_is_of_another_model(tflite: bytes) -> None:
    with pytest.raises(ValueError, match=r"the TFLite model has the inputs \['image'\], the Keras model \['x'\]"):
        parity(models.dense(), tflite, [np.zeros((1, 3))])


def _ranged(model: tf_keras.Model) -> tuple[tf_keras.Model, np.ndarray]:
    examples = np.random.default_rng(3).normal(size=(16, *model.input_shape[1:])).astype(np.float32)
    quantized = quantize_model(model)
    quantized.compile(tf_keras.optimizers.legacy.SGD(0.0), "mse", run_eagerly=True)
    quantized.train_on_batch(examples, np.zeros(model(examples).shape, np.float32))
    return quantized, examples


def test_parity_compares_a_layer_with_its_own_tensor_when_its_range_is_shared() -> None:
    inputs = tf_keras.Input((8, 8, 3), name="x")
    joined = tf_keras.layers.Concatenate()(
        [tf_keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs), inputs]
    )
    quantized, examples = _ranged(tf_keras.Model(inputs, joined))
    assert parity(quantized, convert(quantized), [examples]).first_over(2.0) is None


def test_parity_says_so_when_it_cannot_tell_the_tensors_of_a_shared_layer_apart() -> None:
    inputs = tf_keras.Input((8,), name="x")
    tower = tf_keras.layers.Dense(3, name="tower")
    joined = tf_keras.layers.Concatenate()([tower(inputs[:, :4]), tower(inputs[:, 4:])])
    quantized, examples = _ranged(tf_keras.Model(inputs, joined))
    found = parity(quantized, convert(quantized), [examples])
    assert found.unmatched == ("tower", "tower")
    assert found.first_over(2.0) is None
