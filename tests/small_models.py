"""Small models that tests share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras

from components.quantization.surgery.graph import calls

layers = tf_keras.layers


def chain(
    shape: tuple[int, ...], *steps: Callable[[Any], Any], dtype: str | None = None, library: Any = tf_keras
) -> Any:
    """Layers, or functions of a tensor, in a row, of tf_keras or Keras 3."""
    inputs = values = library.Input(shape, dtype=dtype, name="x")
    for step in steps:
        values = step(values)
    return library.Model(inputs, values, name="edge")


def kinds(model: tf_keras.Model) -> list[str]:
    """The classes of the layers that a model calls, in order."""
    return [type(call.layer).__name__ for call in calls(model)]


def dense(units: int = 2) -> tf_keras.Model:
    """One Dense layer on 3 inputs."""
    return tf_keras.Sequential([layers.InputLayer((3,), name="x"), layers.Dense(units, name="y")])


def convolutional() -> tf_keras.Model:
    """Convolution, batch normalization, ReLU, pooling and a softmax, on 8x8 images."""
    return tf_keras.Sequential(
        [
            layers.InputLayer((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="normalization"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, activation="softmax", name="probabilities"),
        ]
    )


def images(count: int, seed: int = 1) -> np.ndarray:
    """Float32 images of shape (count, 8, 8, 1), 0..1."""
    return np.random.default_rng(seed).random((count, 8, 8, 1), np.float32)


def trained_with_fake_quantization() -> tf_keras.Model:
    """The convolutional model, quantized and fine-tuned for a few steps."""
    from components.quantization import quantize_model

    tf_keras.utils.set_random_seed(1)
    model = quantize_model(convolutional())
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images(32), np.arange(32) % 3, batch_size=8, epochs=1, verbose=0)
    return model
