"""Models of few layers of Keras 2: rows of the support table, and what must plan, train and convert."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tf_keras

K2 = tf_keras.layers
IMAGE, SERIES, VECTOR, VOLUME = (8, 8, 4), (8, 4), (12,), (6, 6, 6, 2)

Builder = Callable[[], Any]
# Makes what is applied to a tensor: a layer, or a function of it.
Make = Callable[[], Callable[[Any], Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Cases that share a row of the support table.

    Attributes:
      cases: Builders of models by the names of the cases.
      sqnr_db: The least ratio of signal to error, in dB, of the integer model against the float model.
      pixels: Whether the inputs are 0..255; else they are standard normal.
    """

    cases: Mapping[str, Builder]
    sqnr_db: float = 30.0
    pixels: bool = False


def chain(*makes: Make, shape: tuple[int, ...] = IMAGE, dtype: str | None = None, library: Any = tf_keras) -> Builder:
    """A model that applies layers, or functions of a tensor, in a row."""

    def build() -> Any:
        inputs = values = library.Input(shape, name="x", dtype=dtype)
        for make in makes:
            values = make()(values)
        return library.Model(inputs, values, name="case")

    return build


def conv() -> Any:
    return K2.Conv2D(4, 3, padding="same")


# Without momentum, the statistics of inference are those of the only batch that there is.
def norm() -> Any:
    return K2.BatchNormalization(momentum=0.0)


def relu() -> Any:
    return K2.ReLU()


def _weighted(name: str, variants: Mapping[str, Make], shape: tuple[int, ...]) -> Group:
    """Each variant alone, and with BatchNormalization and ReLU behind it."""
    cases = {}
    for variant, make in variants.items():
        case = f"{name} {variant}".strip()
        cases[case] = chain(make, shape=shape)
        cases[f"{case} + BatchNormalization + ReLU"] = chain(make, norm, relu, shape=shape)
    return Group(cases=cases)


def _activations(*names: str, layers: Mapping[str, Make] | None = None, sqnr_db: float = 30.0) -> Group:
    """Activation functions as an argument of a convolution and as layers, and layers of their own."""
    cases = {}
    for name in names:
        cases[f"Conv2D({name})"] = chain(lambda name=name: K2.Conv2D(4, 3, activation=name))
        cases[f"Activation({name})"] = chain(lambda name=name: K2.Activation(name))
    return Group(cases=cases | _behind(conv, layers or {}), sqnr_db=sqnr_db)


def _behind(first: Make, makes: Mapping[str, Make], *last: Make, shape: tuple[int, ...] = IMAGE) -> dict[str, Builder]:
    return {name: chain(first, make, *last, shape=shape) for name, make in makes.items()}


def _images(*makes: Callable[..., Any], **named: Make) -> dict[str, Builder]:
    """Layers without arguments, and named others, behind a convolution."""
    return _behind(conv, {make.__name__: make for make in makes} | named)


def _series(*makes: Callable[..., Any]) -> dict[str, Builder]:
    """Layers without arguments between a convolution and a Dense layer."""
    return between_series({make.__name__: make for make in makes})


def between_series(makes: Mapping[str, Make]) -> dict[str, Builder]:
    return _behind(lambda: K2.Conv1D(6, 3), makes, lambda: K2.Dense(4), shape=SERIES)


PIXELS = "Rescaling, Normalization on the input"
_SCALED = {"mean": [120.0, 110.0, 130.0, 125.0], "variance": [4900.0, 5200.0, 4500.0, 5000.0]}

GROUPS: dict[str, Group] = {
    "Conv2D": _weighted(
        "Conv2D",
        {
            "": lambda: K2.Conv2D(4, 3),
            "dilated": lambda: K2.Conv2D(4, 3, dilation_rate=2),
            "strides same": lambda: K2.Conv2D(4, 3, strides=2, padding="same"),
            "grouped": lambda: K2.Conv2D(4, 3, groups=2),
        },
        IMAGE,
    ),
    "DepthwiseConv2D": _weighted(
        "DepthwiseConv2D",
        {"": lambda: K2.DepthwiseConv2D(3), "multiplier": lambda: K2.DepthwiseConv2D(3, depth_multiplier=2)},
        IMAGE,
    ),
    "SeparableConv2D": _weighted("SeparableConv2D", {"": lambda: K2.SeparableConv2D(4, 3)}, IMAGE),
    "Conv2DTranspose": _weighted("Conv2DTranspose", {"": lambda: K2.Conv2DTranspose(4, 3, strides=2)}, IMAGE),
    "Conv1D": _weighted(
        "Conv1D",
        {
            "": lambda: K2.Conv1D(4, 3),
            "causal": lambda: K2.Conv1D(4, 3, padding="causal"),
            "dilated": lambda: K2.Conv1D(4, 3, dilation_rate=2),
        },
        SERIES,
    ),
    "DepthwiseConv1D, SeparableConv1D": Group(
        cases={
            **_weighted("DepthwiseConv1D", {"": lambda: K2.DepthwiseConv1D(3)}, SERIES).cases,
            **_weighted("SeparableConv1D", {"": lambda: K2.SeparableConv1D(4, 3)}, SERIES).cases,
        }
    ),
    "Dense": Group(
        cases={
            **_weighted("Dense", {"": lambda: K2.Dense(6)}, VECTOR).cases,
            **_weighted("Dense", {"on series": lambda: K2.Dense(6)}, SERIES).cases,
            **_weighted("Dense", {"on images": lambda: K2.Dense(6)}, IMAGE).cases,
            "TimeDistributed(Dense)": between_series({"": lambda: K2.TimeDistributed(K2.Dense(3))})[""],
        }
    ),
    "relu, relu6, ReLU": _activations(
        "relu", "relu6", layers={"ReLU(6)": lambda: K2.ReLU(6.0), "ReLU(3)": lambda: K2.ReLU(3.0)}
    ),
    "leaky_relu, LeakyReLU": _activations("leaky_relu", layers={"LeakyReLU": K2.LeakyReLU}),
    "PReLU": Group(cases=_images(PReLU=lambda: K2.PReLU(shared_axes=[1, 2]))),
    "sigmoid, tanh": _activations("sigmoid", "tanh"),
    "softmax, Softmax": _activations("softmax", layers={"Softmax": K2.Softmax}),
    "swish, gelu, hard_sigmoid": _activations("swish", "gelu", "hard_sigmoid"),
    "elu, selu, ELU": _activations("elu", "selu", layers={"ELU": K2.ELU}),
    "BatchNormalization": Group(
        cases={
            **_images(BatchNormalization=norm),
            "BatchNormalization before Conv2D": chain(norm, relu, conv),
        }
    ),
    "LayerNormalization": Group(cases=_images(K2.LayerNormalization), sqnr_db=25.0),
    PIXELS: Group(
        cases={
            "Rescaling": chain(lambda: K2.Rescaling(1 / 127.5, -1.0), conv),
            "Rescaling without offset": chain(lambda: K2.Rescaling(1 / 255.0), conv),
            "Normalization": chain(lambda: K2.Normalization(**_SCALED), conv),
        },
        pixels=True,
    ),
    "MaxPooling, GlobalMaxPooling": Group(
        cases={
            **_images(K2.MaxPooling2D, K2.GlobalMaxPooling2D),
            **_series(K2.MaxPooling1D, K2.GlobalMaxPooling1D),
        }
    ),
    "AveragePooling, GlobalAveragePooling": Group(
        cases={
            **_images(
                K2.GlobalAveragePooling2D,
                AveragePooling2D=lambda: K2.AveragePooling2D(padding="same"),
                **{"AveragePooling2D of all": lambda: K2.AveragePooling2D(8)},
            ),
            **_series(K2.AveragePooling1D, K2.GlobalAveragePooling1D),
        }
    ),
    "ZeroPadding, Cropping": Group(
        cases={
            **_images(K2.ZeroPadding2D, K2.Cropping2D),
            **_series(K2.ZeroPadding1D, K2.Cropping1D),
        }
    ),
    "UpSampling": Group(
        cases={
            **_images(K2.UpSampling2D),
            "UpSampling2D bilinear": chain(conv, lambda: K2.UpSampling2D(interpolation="bilinear")),
            **_series(K2.UpSampling1D),
        }
    ),
    "Flatten, Reshape, Permute, RepeatVector, Dropout": Group(
        cases={
            **_images(
                K2.Flatten,
                Reshape=lambda: K2.Reshape((16, 16)),
                Permute=lambda: K2.Permute((2, 1, 3)),
                Dropout=lambda: K2.Dropout(0.3),
            ),
            "RepeatVector": chain(lambda: K2.Dense(6), lambda: K2.RepeatVector(3), shape=VECTOR),
        }
    ),
    "Embedding": Group(
        cases={
            "Embedding": chain(lambda: K2.Embedding(20, 6), K2.Flatten, lambda: K2.Dense(4), shape=(5,), dtype="int32")
        }
    ),
    "Conv3D": Group(cases={"Conv3D": chain(lambda: K2.Conv3D(2, 3), shape=VOLUME)}),
    "Conv3DTranspose": Group(cases={"Conv3DTranspose": chain(lambda: K2.Conv3DTranspose(2, 3), shape=VOLUME)}),
    "MaxPooling3D": Group(cases={"MaxPooling3D": chain(K2.MaxPooling3D, shape=VOLUME)}),
    "AveragePooling3D": Group(cases={"AveragePooling3D": chain(K2.AveragePooling3D, shape=VOLUME)}),
}
