"""Float models that TensorFlow's converter calibrated, for tests of calibration methods."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.lite.python import convert as tf_convert

from components.quantization.conversion.calibration import recalibrated
from components.quantization.interpreter import IntegerModel

K = tf_keras.layers
Example = dict[str, np.ndarray]


class Calibrated(NamedTuple):
    """A calibrated file, its examples, and its Keras model."""

    tflite: bytes
    examples: tuple[Example, ...]
    model: tf_keras.Model

    def feeds(self) -> Iterator[Example]:
        """The examples, one after another."""
        return iter(self.examples)

    def recalibrated(self, method: str) -> bytes:
        """The file with other ranges."""
        return recalibrated(self.tflite, self.feeds, method)

    def quantized(self, method: str) -> bytes:
        """The integer model of it."""
        return quantized(self.recalibrated(method))


def calibrated(model: tf_keras.Model, examples: tuple[Example, ...]) -> Calibrated:
    """Calibrates a float model with the converter's own min/max."""
    specs = {name: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name) for name, tensor in _inputs(model).items()}

    @tf.function(autograph=False)
    def serve(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"result": model([features[name] for name in specs], training=False)}

    module = tf.Module()
    module.model = model
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function(**specs)], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: iter(examples)
    converter._experimental_calibrate_only = True
    return Calibrated(converter.convert(), examples, model)


def quantized(tflite: bytes) -> bytes:
    """The integer model that the converter makes of a calibrated file."""
    options: dict[str, Any] = {"disable_per_channel": False, "fully_quantize": True}
    options |= {"input_data_type": tf.int8, "output_data_type": tf.int8}
    if "disable_per_channel_for_dense_layers" in inspect.signature(tf_convert.mlir_quantize).parameters:
        options["disable_per_channel_for_dense_layers"] = False
    result: bytes = tf_convert.mlir_quantize(tflite, **options)
    return result


def decibels(case: Calibrated, examples: tuple[Example, ...]) -> Callable[[bytes], float]:
    """Scores an integer model by its signal-to-noise ratio against the float model, in dB."""
    batch = {name: np.concatenate([example[name] for example in examples]) for name in examples[0]}
    expected = case.model.predict([batch[name] for name in _inputs(case.model)], verbose=0)

    def score(tflite: bytes) -> float:
        error = IntegerModel(tflite).predict(batch)["result"] - expected
        return float(10 * np.log10(np.square(expected).sum() / np.square(error).sum()))

    return score


def noise(seed: int, count: int) -> tuple[Example, ...]:
    """Images of faint noise."""
    random = np.random.default_rng(seed)
    return tuple({"image": random.normal(0.0, 0.15, (1, 64, 64, 1)).astype(np.float32)} for _ in range(count))


@functools.cache
def spiked() -> Calibrated:
    """A filter that answers a broken pixel with 40, anything else with itself; one of 800,000 in calibration is."""
    image = tf_keras.Input((64, 64, 1), name="image")
    same = K.Conv2D(1, 1, kernel_initializer="ones")(image)
    spikes = K.Conv2D(1, 1, kernel_initializer=_constant(40.0), bias_initializer=_constant(-40.0))(image)
    x = K.Add()([same, K.ReLU()(spikes)])
    examples = noise(1, 200)
    examples[0]["image"][0, 5, 5, 0] = 2.0
    return calibrated(tf_keras.Model(image, K.Conv2D(1, 1, kernel_initializer="ones")(x)), examples)


@functools.cache
def uniform() -> Calibrated:
    """A layer whose results fill their range evenly: whatever is clipped is missed."""
    x = inputs = tf_keras.Input((16,), name="vector")
    x = K.Dense(16, use_bias=False, kernel_initializer="identity")(x)
    model = tf_keras.Model(inputs, K.Dense(16, use_bias=False, kernel_initializer="identity")(x))
    random = np.random.default_rng(2)
    return calibrated(model, tuple({"vector": random.uniform(-1, 1, (1, 16)).astype(np.float32)} for _ in range(200)))


@functools.cache
def shared_scales() -> Calibrated:
    """Two inputs, and every common kind of op that wants one scale."""
    tf_keras.utils.set_random_seed(3)
    image, vector = tf_keras.Input((8, 8, 3), name="image"), tf_keras.Input((4,), name="vector")
    x = K.MaxPooling2D()(K.Conv2D(4, 3, padding="same", activation="relu")(image))
    x = K.Concatenate()([x, K.Conv2D(4, 3, padding="same")(K.ZeroPadding2D(1)(x))[:, 1:-1, 1:-1]])
    x = K.Concatenate()([K.Reshape((-1,))(x), K.Dense(8, activation="tanh")(vector)])
    x = K.Dense(12)(x)
    x = tf.pad(x, [[0, 0], [0, 1]], constant_values=0.5)
    random = np.random.default_rng(4)
    shapes = {"vector": (1, 4), "image": (1, 8, 8, 3)}  # in another order than the model's
    examples = tuple({name: random.laplace(size=s).astype(np.float32) for name, s in shapes.items()} for _ in range(50))
    return calibrated(tf_keras.Model([image, vector], K.Softmax()(x)), examples)


def _constant(value: float) -> tf_keras.initializers.Initializer:
    return tf_keras.initializers.Constant(value)


def _inputs(model: tf_keras.Model) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in model.inputs}
