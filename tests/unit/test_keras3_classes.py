"""Every layer class that Keras 3 and tf_keras both have: rebuilt so that it computes the same, or refused by name."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.surgery.prepare import functional
from components.quantization.surgery.proof import TOLERANCE, difference

leave_libraries_alone()
K = keras.layers
_RANDOM = np.random.default_rng(1)
VECTOR = _RANDOM.normal(size=(2, 4)).astype(np.float32)
SERIES = _RANDOM.normal(size=(2, 6, 4)).astype(np.float32)
IMAGE = _RANDOM.normal(size=(2, 6, 6, 4)).astype(np.float32)
VOLUME = _RANDOM.normal(size=(2, 4, 4, 4, 2)).astype(np.float32)
LINES = _RANDOM.normal(size=(2, 3, 4, 2)).astype(np.float32)
IMAGES = _RANDOM.normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
VOLUMES = _RANDOM.normal(size=(2, 2, 3, 3, 3, 1)).astype(np.float32)
INDICES = np.array([[1, 2, 3, 0, 0], [3, 4, 0, 0, 0]], np.int32)
WORDS = np.array([["a b"], ["b c"]], object)

Case = tuple[np.ndarray, Callable[[Any], Any]]


def _two(layer: Any) -> Callable[[Any], Any]:
    """A call of a layer that merges tensors."""
    return lambda x: layer([x, x * 2 + 1])


# What each class is tried on, and the function that is called on an input like it.
_CASES: dict[str, Callable[[], Case]] = {
    "Activation": lambda: (VECTOR, K.Activation("tanh")),
    "ActivityRegularization": lambda: (VECTOR, K.ActivityRegularization(l1=0.1, l2=0.1)),
    "Add": lambda: (VECTOR, _two(K.Add())),
    "AdditiveAttention": lambda: (SERIES, _two(K.AdditiveAttention())),
    "AlphaDropout": lambda: (VECTOR, K.AlphaDropout(0.5)),
    "Attention": lambda: (SERIES, _two(K.Attention(use_scale=True))),
    "Average": lambda: (VECTOR, _two(K.Average())),
    "AveragePooling1D": lambda: (SERIES, K.AveragePooling1D(2, padding="same")),
    "AveragePooling2D": lambda: (IMAGE, K.AveragePooling2D(3, strides=1, padding="same")),
    "AveragePooling3D": lambda: (VOLUME, K.AveragePooling3D((2, 1, 2))),
    "BatchNormalization": lambda: (IMAGE, K.BatchNormalization(epsilon=0.1)),
    "Bidirectional": lambda: (SERIES, K.Bidirectional(K.LSTM(3, return_sequences=True), merge_mode="ave")),
    "CategoryEncoding": lambda: (INDICES, K.CategoryEncoding(5, output_mode="multi_hot")),
    "CenterCrop": lambda: (IMAGE, K.CenterCrop(3, 4)),
    "Concatenate": lambda: (SERIES, _two(K.Concatenate(axis=1))),
    "Conv1D": lambda: (SERIES, K.Conv1D(3, 3, padding="causal", dilation_rate=2)),
    "Conv1DTranspose": lambda: (SERIES, K.Conv1DTranspose(3, 3, strides=2, output_padding=1)),
    "Conv2D": lambda: (IMAGE, K.Conv2D(4, 3, groups=2)),
    "Conv2DTranspose": lambda: (IMAGE, K.Conv2DTranspose(3, 3, strides=2, padding="same")),
    "Conv3D": lambda: (VOLUME, K.Conv3D(2, 3, padding="same")),
    "Conv3DTranspose": lambda: (VOLUME, K.Conv3DTranspose(2, 2, strides=2)),
    "ConvLSTM1D": lambda: (LINES, K.ConvLSTM1D(2, 3)),
    "ConvLSTM2D": lambda: (IMAGES, K.ConvLSTM2D(2, 3, return_sequences=True)),
    "ConvLSTM3D": lambda: (VOLUMES, K.ConvLSTM3D(2, 2)),
    "Cropping1D": lambda: (SERIES, K.Cropping1D((1, 2))),
    "Cropping2D": lambda: (IMAGE, K.Cropping2D(((1, 2), (0, 1)))),
    "Cropping3D": lambda: (VOLUME, K.Cropping3D(((1, 0), (0, 1), (1, 1)))),
    "Dense": lambda: (SERIES, K.Dense(3, activation="relu")),
    "DepthwiseConv1D": lambda: (SERIES, K.DepthwiseConv1D(3, depth_multiplier=2)),
    "DepthwiseConv2D": lambda: (IMAGE, K.DepthwiseConv2D(3, strides=2)),
    "Discretization": lambda: (VECTOR, K.Discretization([-0.5, 0.0, 0.5])),
    "Dot": lambda: (SERIES, _two(K.Dot(axes=(1, 1)))),
    "Dropout": lambda: (VECTOR, K.Dropout(0.5)),
    "ELU": lambda: (VECTOR, K.ELU(0.5)),
    "EinsumDense": lambda: (SERIES, K.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d")),
    "Embedding": lambda: (INDICES, K.Embedding(5, 3, mask_zero=True)),
    "Flatten": lambda: (IMAGE, K.Flatten()),
    "GRU": lambda: (SERIES, K.GRU(3, return_sequences=True, go_backwards=True)),
    "GRUCell": lambda: (SERIES, K.RNN(K.GRUCell(3, reset_after=False))),
    "GaussianDropout": lambda: (VECTOR, K.GaussianDropout(0.5)),
    "GaussianNoise": lambda: (VECTOR, K.GaussianNoise(0.5)),
    "GlobalAveragePooling1D": lambda: (SERIES, K.GlobalAveragePooling1D(keepdims=True)),
    "GlobalAveragePooling2D": lambda: (IMAGE, K.GlobalAveragePooling2D()),
    "GlobalAveragePooling3D": lambda: (VOLUME, K.GlobalAveragePooling3D()),
    "GlobalMaxPooling1D": lambda: (SERIES, K.GlobalMaxPooling1D()),
    "GlobalMaxPooling2D": lambda: (IMAGE, K.GlobalMaxPooling2D(keepdims=True)),
    "GlobalMaxPooling3D": lambda: (VOLUME, K.GlobalMaxPooling3D()),
    "GroupNormalization": lambda: (IMAGE, K.GroupNormalization(2)),
    "HashedCrossing": lambda: (INDICES[:, :1], lambda x: K.HashedCrossing(5)([x, x + 1])),
    "Hashing": lambda: (INDICES, K.Hashing(4, salt=3)),
    "Identity": lambda: (VECTOR, K.Identity()),
    "InputLayer": lambda: (VECTOR, K.Dense(2)),
    "IntegerLookup": lambda: (INDICES, K.IntegerLookup(vocabulary=[1, 2, 3])),
    "LSTM": lambda: (SERIES, K.LSTM(3, return_state=True)),
    "LSTMCell": lambda: (SERIES, K.RNN(K.LSTMCell(3))),
    "Lambda": lambda: (VECTOR, K.Lambda(lambda x: x * 2)),
    "LayerNormalization": lambda: (SERIES, K.LayerNormalization(axis=[1, 2])),
    "LeakyReLU": lambda: (VECTOR, K.LeakyReLU(negative_slope=0.1)),
    "Masking": lambda: (SERIES, lambda x: K.LSTM(3)(K.Masking()(x))),
    "MaxPooling1D": lambda: (SERIES, K.MaxPooling1D(2, strides=1)),
    "MaxPooling2D": lambda: (IMAGE, K.MaxPooling2D(3, padding="same")),
    "MaxPooling3D": lambda: (VOLUME, K.MaxPooling3D()),
    "Maximum": lambda: (VECTOR, _two(K.Maximum())),
    "Minimum": lambda: (VECTOR, _two(K.Minimum())),
    "MultiHeadAttention": lambda: (SERIES, lambda x: K.MultiHeadAttention(2, 3)(x, x)),
    "Multiply": lambda: (VECTOR, _two(K.Multiply())),
    "Normalization": lambda: (VECTOR, K.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[4.0, 3.0, 2.0, 1.0])),
    "PReLU": lambda: (IMAGE, K.PReLU(shared_axes=[1, 2])),
    "Permute": lambda: (IMAGE, K.Permute((3, 1, 2))),
    "RNN": lambda: (SERIES, K.RNN(K.SimpleRNNCell(3), return_sequences=True)),
    "RandomBrightness": lambda: (IMAGE, K.RandomBrightness(0.5)),
    "RandomContrast": lambda: (IMAGE, K.RandomContrast(0.5)),
    "RandomFlip": lambda: (IMAGE, K.RandomFlip("vertical")),
    "RandomRotation": lambda: (IMAGE, K.RandomRotation(0.5)),
    "RandomTranslation": lambda: (IMAGE, K.RandomTranslation(0.5, 0.5)),
    "RandomZoom": lambda: (IMAGE, K.RandomZoom(0.5)),
    "ReLU": lambda: (VECTOR, K.ReLU(1.0, 0.1, 0.2)),
    "RepeatVector": lambda: (VECTOR, K.RepeatVector(3)),
    "Rescaling": lambda: (IMAGE, K.Rescaling([1.0, 2.0, 3.0, 4.0], 0.5)),
    "Reshape": lambda: (IMAGE, K.Reshape((4, -1))),
    "Resizing": lambda: (IMAGE, K.Resizing(4, 9, interpolation="nearest")),
    "SeparableConv1D": lambda: (SERIES, K.SeparableConv1D(3, 3)),
    "SeparableConv2D": lambda: (IMAGE, K.SeparableConv2D(3, 3, depth_multiplier=2)),
    "SimpleRNN": lambda: (SERIES, K.SimpleRNN(3)),
    "SimpleRNNCell": lambda: (SERIES, K.RNN(K.SimpleRNNCell(3, use_bias=False))),
    "Softmax": lambda: (IMAGE, K.Softmax(axis=1)),
    "SpatialDropout1D": lambda: (SERIES, K.SpatialDropout1D(0.5)),
    "SpatialDropout2D": lambda: (IMAGE, K.SpatialDropout2D(0.5)),
    "SpatialDropout3D": lambda: (VOLUME, K.SpatialDropout3D(0.5)),
    "SpectralNormalization": lambda: (IMAGE, K.SpectralNormalization(K.Conv2D(3, 3))),
    "StackedRNNCells": lambda: (SERIES, K.RNN(K.StackedRNNCells([K.LSTMCell(3), K.GRUCell(2)]))),
    "Subtract": lambda: (VECTOR, _two(K.Subtract())),
    "TimeDistributed": lambda: (SERIES, K.TimeDistributed(K.Dense(3))),
    "UnitNormalization": lambda: (SERIES, K.UnitNormalization(axis=1)),
    "UpSampling1D": lambda: (SERIES, K.UpSampling1D(3)),
    "UpSampling2D": lambda: (IMAGE, K.UpSampling2D((2, 3), interpolation="bilinear")),
    "UpSampling3D": lambda: (VOLUME, K.UpSampling3D(2)),
    "ZeroPadding1D": lambda: (SERIES, K.ZeroPadding1D((1, 2))),
    "ZeroPadding2D": lambda: (IMAGE, K.ZeroPadding2D(((1, 2), (0, 3)))),
    "ZeroPadding3D": lambda: (VOLUME, K.ZeroPadding3D(((1, 0), (0, 1), (1, 1)))),
}

# Likewise, and why it is refused.
_REFUSED: dict[str, tuple[Callable[[], Case], str]] = {
    "RandomCrop": (lambda: (IMAGE, K.RandomCrop(3, 3)), "leaves images whole at inference in some versions of Keras"),
    "StringLookup": (lambda: (WORDS, K.StringLookup(vocabulary=["a b", "b c"])), "computes with strings"),
    "TextVectorization": (lambda: (WORDS, K.TextVectorization(vocabulary=["a", "b"])), "computes with strings"),
}

# Classes that no model calls.
_NO_LAYERS = {"InputSpec": "describes inputs", "Layer": "base class", "Wrapper": "base class"}

# Classes that become another one: a function of the user's its operations, and a wrapper what it wraps.
_BECOMES = {"Lambda": "TFOpLambda", "SpectralNormalization": "Conv2D"}


def _common_classes() -> list[str]:
    """The names of the classes that both have in their modules of layers, each once however many names it has."""
    classes = {
        kind: None
        for name, kind in sorted(vars(keras.layers).items())
        if inspect.isclass(kind) and inspect.isclass(getattr(tf_keras.layers, name, None))
    }
    return [kind.__name__ for kind in classes if kind.__name__ not in _NO_LAYERS]


def _model(example: np.ndarray, call: Callable[[Any], Any]) -> keras.Model:
    dtype = "string" if example.dtype == object else example.dtype.name
    inputs = keras.Input(example.shape[1:], dtype=dtype, name="x")
    model = keras.Model(inputs, call(inputs), name="tried")
    for number, weight in enumerate(model.weights):
        if "float" in weight.dtype:
            weight.assign(np.random.default_rng(number).uniform(0.1, 1.0, weight.shape))
    return model


@pytest.mark.parametrize("name", [name for name in _common_classes() if name not in _REFUSED])
def test_functional_computes_the_same_when_a_class_of_keras3_is_one_of_tf_keras_too(name: str) -> None:
    assert name in _CASES, f"keras.layers.{name} and tf_keras.layers.{name} exist: add to this file how it is called"
    example, call = _CASES[name]()
    model = _model(example, call)
    built = functional(model)
    olds, news = (tf.nest.flatten(one(example, training=False)) for one in (model, built))
    assert max(difference(old, new) for old, new in zip(olds, news, strict=True)) <= TOLERANCE
    assert len(built.trainable_weights) == len(model.trainable_weights)
    assert _BECOMES.get(name, name) in {type(layer).__name__ for layer in built._flatten_layers()}


@pytest.mark.parametrize("name", _REFUSED)
def test_functional_names_the_layer_when_its_class_cannot_be_rebuilt(name: str) -> None:
    case, why = _REFUSED[name]
    model = _model(*case())
    with pytest.raises(ValueError, match=rf"'{model.layers[-1].name}' \({name}\) {why}"):
        functional(model)
