"""Where fake quantization meets what models do besides computing: losses, masks, frozen or dead channels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import audit, convert, parity, plan, quantize_model
from components.quantization.autograph import leave_libraries_alone
from components.quantization.conversion import flatbuffer
from components.quantization.qat.quantized_affine import QuantizedAffine
from components.quantization.schemes import QuantizationScheme

pytestmark = pytest.mark.long

leave_libraries_alone()
K = tf_keras.layers


def _examples(model: tf_keras.Model) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(16, *model.input_shape[1:])).astype(np.float32)


def _ranged(model: tf_keras.Model, examples: np.ndarray, scheme: str | QuantizationScheme = "full_int8") -> Any:
    """The quantized model with the ranges of the examples and the weights that it had."""
    quantized = quantize_model(model, scheme)
    quantized.compile(tf_keras.optimizers.legacy.SGD(0.0), "mse", run_eagerly=True)
    quantized.train_on_batch(examples, tf.nest.map_structure(np.zeros_like, model(examples)))
    return quantized


# --- Losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "loss", "label"),
    [("softmax", "sparse_categorical_crossentropy", [0]), ("sigmoid", "binary_crossentropy", [[1.0, 0.0, 0.0]])],
)
def test_gradients_are_those_of_the_float_model_when_it_is_confidently_wrong(
    activation: str, loss: str, label: list[Any]
) -> None:
    inputs = tf_keras.Input((3,), name="x")
    model = tf_keras.Model(inputs, K.Dense(3, activation, use_bias=False, name="y")(inputs))
    model.set_weights([np.eye(3, dtype=np.float32) * 12.0])
    features, labels = np.array([[-1.0, -0.5, 1.0]], np.float32), tf.constant(label)
    quantized = quantize_model(model)
    quantized(2.0 * features * [[1.0, -1.0, 1.0]], training=True)  # its ranges reach farther than the example
    found = []
    for trained in (model, quantized):
        trained.compile("sgd", loss)
        with tf.GradientTape() as tape:
            value = trained.compute_loss(y=labels, y_pred=trained(features, training=True))
        found.append(tape.gradient(value, trained.trainable_weights)[0].numpy())
    np.testing.assert_allclose(found[1], found[0], atol=0.02)
    assert np.abs(found[0]).max() > 0.3  # it has something to learn


def test_probabilities_stay_as_they_are_in_training_when_only_their_shape_changes_behind() -> None:
    inputs = tf_keras.Input((3,), name="x")
    model = tf_keras.Model(inputs, K.Reshape((1, 3))(K.Softmax(name="softmax")(K.Dense(3, use_bias=False)(inputs))))
    model.set_weights([np.eye(3, dtype=np.float32) * 8.0])
    quantized = quantize_model(model)
    features = np.array([[-1.0, -0.5, 1.0]], np.float32)
    quantized(2.0 * features * [[1.0, -1.0, 1.0]], training=True)
    found = quantized(features, training=True).numpy()
    assert 0.0 < found[0, 0, 0] < 1e-5
    np.testing.assert_allclose(found, model(features), atol=1e-3)
    assert quantized(features, training=False).numpy()[0, 0, 0] == 0.0


def test_gate_inside_the_model_is_rounded_in_training_and_passes_gradients() -> None:
    inputs = tf_keras.Input((4,), name="x")
    gate = K.Activation("sigmoid", name="gate")(inputs)
    quantized = quantize_model(tf_keras.Model(inputs, K.Dense(2, name="y")(gate)))
    quantizer = quantized.get_layer("gate_range")
    values = tf.constant([[0.001, 0.5, 0.7003, 0.9999]])
    with tf.GradientTape() as tape:
        tape.watch(values)
        rounded = quantizer(values, training=True)
    np.testing.assert_allclose(rounded * 256.0, np.clip(np.rint(values * 256.0), 0, 255), atol=1e-4)
    np.testing.assert_array_equal(tape.gradient(rounded, values), np.ones((1, 4)))


# --- Masks ------------------------------------------------------------------------------------------------------------


def _padded() -> np.ndarray:
    indices = np.random.default_rng(3).integers(1, 20, (16, 8)).astype(np.int32)
    indices[::2, 5:] = 0
    return indices


@pytest.mark.parametrize("behind", [lambda: K.GRU(5), lambda: K.LSTM(5), lambda: K.Bidirectional(K.LSTM(5))])
def test_padding_is_left_out_when_the_model_has_a_mask(behind: Callable[[], Any]) -> None:
    tf_keras.utils.set_random_seed(1)
    inputs = tf_keras.Input((8,), dtype="int32", name="words")
    embedded = K.Embedding(20, 6, mask_zero=True, embeddings_initializer=tf_keras.initializers.RandomNormal())(inputs)
    model = tf_keras.Model(inputs, K.Dense(3, name="y")(behind()(K.Dense(4)(embedded))))
    padded = _padded()
    quantized = _ranged(model, padded)
    expected = model(padded).numpy()
    assert np.abs(quantized(padded).numpy() - expected).max() < 0.02 * np.ptp(expected)
    tflite = convert(quantized, representative_dataset=[{"words": padded}], profile="cpu")
    assert audit(tflite).integer_only
    assert parity(quantized, tflite, [{"words": padded}]).tensors[-1].sqnr_db > 15.0


@pytest.mark.parametrize("given", [False, True])
def test_plan_refuses_an_average_that_a_mask_changes(given: bool) -> None:
    inputs = tf_keras.Input((8,), dtype="int32", name="words")
    embedded = K.Embedding(20, 6, mask_zero=not given)(inputs)
    mask = {"mask": tf.not_equal(inputs, 0)} if given else {}
    model = tf_keras.Model(inputs, K.Dense(3)(K.GlobalAveragePooling1D(name="mean")(embedded, **mask)))
    (blocker,) = plan(model).blockers
    assert (blocker.name, "what a mask leaves" in blocker.reason) == ("mean", True)


def test_plan_refuses_indices_that_come_as_floats() -> None:
    model = tf_keras.Sequential([K.Embedding(20, 6, input_length=5, name="words"), K.Flatten(), K.Dense(3)])
    (blocker,) = plan(model).blockers
    assert (blocker.name, "give the model's input dtype='int32'" in blocker.reason) == ("words", True)


# --- Ranges that kernels prescribe ------------------------------------------------------------------------------------


def _sigmoid(x: Any) -> Any:
    return K.Dense(4, activation="sigmoid", name="sigmoid")(x)


def _with_output(x: Any) -> Any:
    gate = _sigmoid(x)
    return [K.Concatenate()([gate, K.Dense(4, activation="relu")(x)]), K.Dense(2)(gate)]


def _product(x: Any) -> Any:
    gate = _sigmoid(x)
    return K.Multiply()([gate, K.Concatenate()([gate, K.Dense(4)(x)])[:, :4]])


def _two_concatenations(x: Any) -> Any:
    gate = _sigmoid(x)
    joined = [K.Concatenate()([gate, K.Dense(4)(x)]), K.Concatenate()([gate, K.Dense(4)(x)])]
    return K.Add()([K.Dense(3)(one) for one in joined])


def _of_itself(x: Any) -> Any:
    bent = K.Dense(4, activation="tanh")(x)
    return K.Dense(2)(K.Concatenate()([bent, K.Dense(3)(bent)]))


def _maximum(x: Any) -> Any:
    return K.Dense(2)(K.Maximum()([_sigmoid(x), K.Dense(4, activation="tanh")(x)]))


def _pooled(x: Any) -> Any:
    gate = K.Reshape((4, 1, 1))(_sigmoid(x))
    return K.Flatten()(K.Concatenate()([K.MaxPooling2D((2, 1))(gate), K.Reshape((2, 1, 1))(K.Dense(2)(x))]))


@pytest.mark.parametrize("build", [_with_output, _product, _two_concatenations, _of_itself, _maximum, _pooled])
def test_model_converts_when_a_sigmoid_shares_its_range_for_one_use_of_several(build: Callable[[Any], Any]) -> None:
    tf_keras.utils.set_random_seed(1)
    inputs = tf_keras.Input((6,), name="x")
    model = tf_keras.Model(inputs, build(inputs))
    quantized = _ranged(model, _examples(model))
    found = parity(quantized, convert(quantized), [_examples(model)])
    assert all(tensor.sqnr_db > 35.0 for tensor in found.tensors if tensor.name.startswith("output")), str(found)


# --- Recurrent layers -------------------------------------------------------------------------------------------------


def test_lstm_converts_when_it_hands_its_state_on() -> None:
    inputs = tf_keras.Input((6, 4), name="x")
    _, *state = K.LSTM(5, return_state=True)(inputs)
    decoded = K.LSTM(5, return_sequences=True)(inputs, initial_state=state)
    model = tf_keras.Model(inputs, K.Dense(3, name="y")(decoded))
    tflite = convert(_ranged(model, _examples(model)), representative_dataset=[_examples(model)], profile="cpu")
    assert audit(tflite).integer_only


# --- Channels ---------------------------------------------------------------------------------------------------------


def test_weights_keep_their_scale_when_a_channel_of_the_normalization_is_dead() -> None:
    inputs = tf_keras.Input((6,), name="x")
    model = tf_keras.Model(inputs, K.BatchNormalization(name="bn")(K.Dense(4, use_bias=False, name="d")(inputs)))
    gamma = np.array([0.01, 0.01, 0.01, 0.0], np.float32)
    model.get_layer("bn").set_weights([gamma, np.zeros(4), np.zeros(4), np.ones(4)])
    layer = quantize_model(model).get_layer("d")
    in_training, kernel = layer._training_kernel().numpy(), layer.kernel.numpy()
    step = np.abs(kernel[:, :3]).max() / 127.0
    assert np.abs(in_training - kernel).max() <= 0.501 * step


def test_normalization_trains_what_it_deploys_when_all_channels_share_a_scale() -> None:
    inputs = tf_keras.Input((6, 6, 4), name="x")
    model = tf_keras.Model(inputs, K.Conv2D(3, 1)(K.ReLU()(K.BatchNormalization(name="bn")(inputs))))
    gains = np.array([1.0, 0.1, 0.01, 0.003], np.float32)
    model.get_layer("bn").set_weights([gains, np.full(4, 0.5), np.zeros(4), np.ones(4)])
    model.get_layer("bn").trainable = False
    quantized = _ranged(model, _examples(model), "full_int8_per_tensor")
    layer = next(one for one in quantized.layers if isinstance(one, QuantizedAffine))
    images = _examples(model)
    np.testing.assert_allclose(layer(images, training=True), layer(images, training=False), atol=1e-5)
    float_values = model.get_layer("bn")(images, training=False)
    assert np.abs(layer(images, training=True) - float_values).max() > 1e-3  # rounding is seen


def test_normalization_is_folded_by_the_converter_when_the_layer_before_it_is_left_out() -> None:
    inputs = tf_keras.Input((8, 8, 3), name="x")
    x = K.ReLU()(K.BatchNormalization()(K.Conv2D(4, 3, name="first")(inputs)))
    model = tf_keras.Model(inputs, K.Conv2D(2, 3, name="second")(x))
    scheme = QuantizationScheme(name="mine", overrides=(("^first$", "skip"),))
    tflite = convert(_ranged(model, _examples(model), scheme), scheme, [_examples(model)])
    assert [op.code for op in flatbuffer.read_subgraphs(tflite)[0].ops] == ["CONV_2D", "CONV_2D"]
