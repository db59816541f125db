"""Models of Keras 2 that loop, branch or nest: rows of the support table, as those in layer_cases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from layer_cases import IMAGE, K2, SERIES, VECTOR, Builder, Group, Make, between_series, chain, conv, norm, relu


def branches(merge: Make, *bodies: Callable[[Any], Any]) -> Builder:
    """Functions of one tensor, merged, then a convolution."""

    def build() -> Any:
        inputs = tf_keras.Input(IMAGE, name="x")
        stem = relu()(conv()(inputs))
        return tf_keras.Model(inputs, conv()(merge()([body(stem) for body in bodies])), name="case")

    return build


def _rectified(x: Any) -> Any:
    return relu()(conv()(x))


def _sigmoid(x: Any) -> Any:
    return K2.Activation("sigmoid")(conv()(x))


def _linear(x: Any) -> Any:
    return conv()(x)


def _same(x: Any) -> Any:
    return x


def _excited(x: Any) -> Any:
    return _sigmoid(K2.Reshape((1, 1, 4))(K2.GlobalAveragePooling2D()(x)))


def _merges(*names: str) -> dict[str, Builder]:
    return {name: branches(getattr(K2, name), _rectified, _linear) for name in names}


def _merges_of_three(*names: str) -> dict[str, Builder]:
    return {f"{name} of three": branches(getattr(K2, name), _rectified, _linear, _same) for name in names}


_EIGHT = (
    _rectified,
    _sigmoid,
    _linear,
    _same,
    _rectified,
    lambda x: K2.MaxPooling2D(1)(x),
    lambda x: norm()(x),
    lambda x: K2.AveragePooling2D(3, 1, "same")(x),
)


def _submodel(depth: int) -> Any:
    inputs = tf_keras.Input(IMAGE)
    values = _rectified(inputs) if depth == 1 else _submodel(depth - 1)(inputs)
    return tf_keras.Model(inputs, norm()(conv()(values)), name=f"level{depth}")


def _shared_submodel() -> Any:
    one, two = tf_keras.Input(IMAGE, name="one"), tf_keras.Input(IMAGE, name="two")
    shared = _submodel(2)
    return tf_keras.Model([one, two], [K2.Add()([shared(one), shared(two)]), shared(one)], name="case")


def _shared_layer() -> Any:
    one, two = tf_keras.Input(VECTOR, name="one"), tf_keras.Input(VECTOR, name="two")
    shared = K2.Dense(6, activation="relu")
    return tf_keras.Model([one, two], K2.Concatenate()([shared(one), shared(two)]), name="case")


class Subclassed(tf_keras.Model):
    """A model with a call of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = conv(), norm(), K2.Dense(3)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        values = tf.nn.relu(self.norm(self.conv(inputs), training=training))
        return self.head(tf.reduce_mean(values, [1, 2]))


def function(body: Callable[[Any], Any]) -> Make:
    """Makes the function itself."""
    return lambda: body


def called(make: Callable[[], Any]) -> Builder:
    """A subclassed model, built by calling it once."""

    def build() -> Any:
        model = make()
        model(np.zeros((1, *IMAGE), np.float32))
        return model

    return build


GROUPS: dict[str, Group] = {
    "LSTM": Group(
        cases={
            **between_series({"LSTM": lambda: K2.LSTM(6), "LSTM sequences": lambda: K2.LSTM(6, return_sequences=True)}),
            "LSTM on the input": chain(lambda: K2.LSTM(6), lambda: K2.Dense(4), shape=SERIES),
        },
        sqnr_db=30.0,
    ),
    "GRU, SimpleRNN, Bidirectional": Group(
        cases=between_series(
            {
                "GRU": lambda: K2.GRU(6),
                "SimpleRNN": lambda: K2.SimpleRNN(6),
                "Bidirectional(LSTM)": lambda: K2.Bidirectional(K2.LSTM(6)),
            }
        ),
        sqnr_db=20.0,
    ),
    "MultiHeadAttention": Group(
        cases=between_series({"MultiHeadAttention": lambda: lambda x: K2.MultiHeadAttention(2, 4)(x, x)}),
        sqnr_db=20.0,
    ),
    "Add, Subtract, Multiply, Average": Group(
        cases={
            **_merges("Add", "Subtract", "Multiply", "Average"),
            **_merges_of_three("Add", "Multiply", "Average"),
            "squeeze and excite": branches(K2.Multiply, _same, _excited),
        }
    ),
    "Maximum, Minimum": Group(cases={**_merges("Maximum", "Minimum"), **_merges_of_three("Maximum")}),
    "Concatenate": Group(
        cases={
            **_merges("Concatenate"),
            "Concatenate behind sigmoid": branches(K2.Concatenate, _rectified, _sigmoid),
            "Concatenate of eight, any feeders": branches(K2.Concatenate, *_EIGHT),
        }
    ),
    "operators and functions": Group(
        cases={
            "operators: x * 2 + 1 - x / 3": chain(conv, function(lambda x: x * 2.0 + 1.0 - x / 3.0)),
            "operators: slices": chain(conv, function(lambda x: x[:, 1:-1, ::2, :2])),
            "tf.nn.relu6(x + 3) * x / 6": chain(conv, function(lambda x: tf.nn.relu6(x + 3.0) * x * (1.0 / 6.0))),
            "tf.concat, tf.split": chain(conv, function(lambda x: tf.concat(tf.split(x, 2, axis=-1)[::-1], -1)), conv),
        }
    ),
    "nested and subclassed models": Group(
        cases={
            "nested once": chain(lambda: _submodel(1), relu),
            "nested three times": chain(lambda: _submodel(3), relu),
            "nested, shared, two inputs and outputs": _shared_submodel,
            "shared layer": _shared_layer,
            "subclassed": called(Subclassed),
        }
    ),
}
