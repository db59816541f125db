"""Models, and the preprocessing that feeds them, which the tests of the I/O contract share."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization import convert
from components.quantization.contract.build import BuiltContract, Knowledge, build_contract
from components.quantization.contract.preprocessing import Preprocessing

layers = tf_keras.layers

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@functools.cache
def image_model(io_dtype: str = "int8", low: float = 0.0, high: float = 1.0) -> bytes:
    """A convolution on 8x8 images of 3 channels, calibrated for values from `low` to `high`; the Edge TPU takes it."""
    tf_keras.utils.set_random_seed(1)
    model = tf_keras.Sequential(
        [
            layers.InputLayer((8, 8, 3), name="image"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    calibration = np.random.default_rng(1).uniform(low, high, (8, 8, 8, 3)).astype(np.float32)
    calibration[0, 0, 0, 0], calibration[0, 0, 0, 1] = low, high
    return convert(model, representative_dataset=[calibration], profile="edge_tpu", io_dtype=io_dtype)


@functools.cache
def table_model(low: float = -3.0, high: float = 3.0) -> bytes:
    """One layer on 3 columns, calibrated for values from `low` to `high`."""
    tf_keras.utils.set_random_seed(1)
    model = tf_keras.Sequential([layers.InputLayer((3,), name="columns"), layers.Dense(2, name="scores")])
    calibration = np.linspace(low, high, 30, dtype=np.float32).reshape(10, 3)
    return convert(model, representative_dataset=[calibration], profile="cpu")


@functools.cache
def two_input_model() -> bytes:
    """Columns and an index into a table in; two outputs."""
    tf_keras.utils.set_random_seed(1)
    columns, word = tf_keras.Input((3,), name="columns"), tf_keras.Input((1,), name="word", dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(5, 4, name="table")(word))
    both = layers.Concatenate()([layers.Dense(4, name="hidden")(columns), embedded])
    outputs = {"scores": layers.Dense(3, name="scores")(both), "size": layers.Dense(1, name="size")(both)}
    calibration = {
        "columns": np.linspace(-1, 1, 30, dtype=np.float32).reshape(10, 3),
        "word": np.arange(10, dtype=np.int32).reshape(10, 1) % 5,
    }
    return convert(tf_keras.Model([columns, word], outputs), representative_dataset=[calibration], profile="cpu")


def contract_of(
    tflite: bytes,
    function: Callable[[dict[str, Any]], Mapping[str, Any]],
    raw: Mapping[str, Any],
    examples: bool = True,
    **knowledge: Any,
) -> BuiltContract:
    """The contract of a file whose preprocessing is a function of raw examples like `raw`."""
    arrays = {name: np.asarray(value) for name, value in raw.items()}
    features = {
        name: tf.TensorSpec([None, *value.shape[1:]], tf.string if value.dtype == object else value.dtype)
        for name, value in arrays.items()
    }
    return build_contract(
        tflite,
        Knowledge(
            preprocessing=Preprocessing(function=function, features=features),
            raw_examples=arrays if examples else None,
            **knowledge,
        ),
    )


def pixels(count: int = 16, seed: int = 1) -> np.ndarray:
    """Uint8 images of shape (count, 8, 8, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def table(count: int = 64, seed: int = 1) -> np.ndarray:
    """Float32 columns of shape (count, 3), of unlike means and deviations."""
    normal = np.random.default_rng(seed).normal(size=(count, 3))
    return (normal * [3.0, 40.0, 0.1] + [1.0, 100.0, -2.0]).astype(np.float32)


def standardized(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Columns less their means, by their deviations."""
    return {"columns": (raw["table"] - [1.0, 100.0, -2.0]) / [3.0, 40.0, 0.1]}


def scaled(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes to 0..1."""
    return {"image": tf.cast(raw["pixels"], tf.float32) / 255.0}


def decoded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """JPEG bytes to 0..1."""
    images = tf.map_fn(
        lambda jpeg: tf.ensure_shape(tf.io.decode_jpeg(jpeg, channels=3), [8, 8, 3]),
        raw["jpeg"],
        fn_output_signature=tf.TensorSpec([8, 8, 3], tf.uint8),
    )
    return {"image": tf.cast(images, tf.float32) / 255.0}


def imagenet(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes to a mean of 0 and a deviation of 1 per channel."""
    return {"image": (tf.cast(raw["pixels"], tf.float32) / 255.0 - MEAN) / DEVIATION}


def gamma(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes to 0..1 by a curve."""
    return {"image": tf.pow(tf.cast(raw["pixels"], tf.float32) / 255.0, 2.2)}


def jpegs(count: int = 8) -> np.ndarray:
    """JPEG files of `pixels`."""
    return np.array([tf.io.encode_jpeg(image).numpy() for image in pixels(count)], object)
