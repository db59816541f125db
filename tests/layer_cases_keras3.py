"""Models of few layers of Keras 3: rows of the support table, as those in layer_cases."""

from typing import Any

import keras

import layer_cases
from layer_cases import IMAGE, PIXELS, SERIES, VECTOR, Builder, Group, Make
from layer_cases_graphs import called

K3, ops = keras.layers, keras.ops


def chain(*makes: Make, shape: tuple[int, ...] = IMAGE, dtype: str | None = None) -> Builder:
    """A model of Keras 3 that applies layers, or functions of a tensor, in a row."""
    return layer_cases.chain(*makes, shape=shape, dtype=dtype, library=keras)


def _conv() -> Any:
    return K3.Conv2D(4, 3, padding="same")


def _norm() -> Any:
    return K3.BatchNormalization(momentum=0.0)


class Subclassed(keras.Model):
    """A Keras 3 model with a call of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = _conv(), _norm(), K3.Dense(3)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        values = ops.relu(self.norm(self.conv(inputs), training=training))
        return self.head(ops.mean(values, axis=(1, 2)))


def _nested() -> Any:
    block = keras.Sequential([_conv(), _norm(), K3.ReLU()], name="block")
    return keras.Sequential([keras.Input(IMAGE, name="x"), block, K3.Flatten(), K3.Dense(3)], name="case")


def _two_inputs() -> Any:
    image, vector = keras.Input(IMAGE, name="image"), keras.Input((6,), name="vector")
    pooled = K3.GlobalAveragePooling2D()(K3.ReLU()(_conv()(image)))
    merged = K3.Concatenate()([pooled, K3.Dense(4, activation="relu")(vector)])
    return keras.Model([image, vector], [K3.Dense(3, name="a")(merged), K3.Dense(2, name="b")(merged)], name="case")


def _operators() -> Any:
    inputs = keras.Input(IMAGE, name="x")
    values = _conv()(inputs)
    return keras.Model(inputs, ops.relu(values * 2.0 + inputs) - values / 3.0, name="case")


def _dense(units: int, activation: str | None = None) -> Make:
    return lambda: K3.Dense(units, activation=activation)


def _activated(name: str) -> dict[str, Builder]:
    return {f"Conv2D({name})": chain(lambda: K3.Conv2D(4, 3, activation=name))}


def _attended(x: Any) -> Any:
    return K3.MultiHeadAttention(2, 4)(x, x)


GROUPS: dict[str, Group] = {
    "Conv2D": Group(
        cases={
            "Conv2D + BatchNormalization + ReLU": chain(lambda: K3.Conv2D(4, 3), _norm, K3.ReLU),
            "Conv2D grouped": chain(lambda: K3.Conv2D(4, 3, groups=2)),
        }
    ),
    "DepthwiseConv2D": Group(
        cases={
            "DepthwiseConv2D + BatchNormalization + ReLU(6)": chain(
                lambda: K3.DepthwiseConv2D(3), _norm, lambda: K3.ReLU(6.0)
            )
        }
    ),
    "SeparableConv2D": Group(cases={"SeparableConv2D": chain(lambda: K3.SeparableConv2D(4, 3, activation="relu"))}),
    "Conv2DTranspose": Group(cases={"Conv2DTranspose": chain(lambda: K3.Conv2DTranspose(4, 3, strides=2))}),
    "Conv1D": Group(
        cases={"Conv1D causal": chain(lambda: K3.Conv1D(4, 3, padding="causal", activation="relu"), shape=SERIES)}
    ),
    "Dense": Group(cases={"Dense(swish)": chain(_dense(6, "swish"), _dense(3), shape=VECTOR)}),
    "leaky_relu, LeakyReLU": Group(cases={"LeakyReLU": chain(_conv, K3.LeakyReLU)}),
    "PReLU": Group(cases={"PReLU": chain(_conv, lambda: K3.PReLU(shared_axes=[1, 2]))}),
    "softmax, Softmax": Group(cases={"Dense(softmax)": chain(_dense(6, "softmax"), shape=VECTOR)}),
    "swish, gelu, hard_sigmoid": Group(
        cases={**_activated("hard_silu"), **_activated("gelu"), **_activated("hard_sigmoid")}
    ),
    "elu, selu, ELU": Group(cases=_activated("elu")),
    "BatchNormalization": Group(cases={"BatchNormalization before Conv2D": chain(_norm, K3.ReLU, _conv)}),
    "LayerNormalization": Group(cases={"LayerNormalization": chain(_conv, K3.LayerNormalization)}, sqnr_db=20.0),
    PIXELS: Group(cases={"Rescaling": chain(lambda: K3.Rescaling(1 / 127.5, -1.0), _conv)}, pixels=True),
    "AveragePooling, GlobalAveragePooling": Group(
        cases={
            "GlobalAveragePooling2D": chain(_conv, K3.GlobalAveragePooling2D),
            "AveragePooling2D": chain(_conv, lambda: K3.AveragePooling2D(2)),
        }
    ),
    "UpSampling": Group(cases={"UpSampling2D": chain(_conv, K3.UpSampling2D)}),
    "Embedding": Group(
        cases={
            "Embedding": chain(lambda: K3.Embedding(20, 6), K3.Flatten, _dense(4), shape=(5,), dtype="int32"),
        }
    ),
    "LSTM": Group(
        cases={"LSTM": chain(lambda: K3.Conv1D(6, 3), lambda: K3.LSTM(6), _dense(4), shape=SERIES)}, sqnr_db=30.0
    ),
    "GRU, SimpleRNN, Bidirectional": Group(
        cases={"GRU": chain(lambda: K3.Conv1D(6, 3), lambda: K3.GRU(6), _dense(4), shape=SERIES)}, sqnr_db=20.0
    ),
    "MultiHeadAttention": Group(
        cases={
            "MultiHeadAttention": chain(lambda: K3.Conv1D(6, 3), lambda: _attended, _dense(4), shape=SERIES),
        },
        sqnr_db=20.0,
    ),
    "operators and functions": Group(cases={"operators and keras.ops": _operators}),
    "nested and subclassed models": Group(
        cases={
            "nested Sequential": _nested,
            "two inputs and outputs": _two_inputs,
            "subclassed": called(Subclassed),
        }
    ),
}
