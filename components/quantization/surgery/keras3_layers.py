"""Layers of Keras 3 as layers of tf_keras: their arguments translated, not their weights."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.surgery.keras3_graph import (
    REMEDY,
    RefusalError,
    is_of_keras,
    tf_keras_dtype,
    valid_name,
)

_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
# Arguments of any layer, and one that the recurrent layers of tf_keras take without naming it.
_COMMON_ARGUMENTS = frozenset({"name", "trainable", "dtype", "activity_regularizer", "zero_output_for_mask"})
# Arguments that tf_keras does not have and that change nothing, or nothing unless another one is set.
_WITHOUT_EFFECT = frozenset({"seed", "autocast", "fill_mode", "fill_value", "value_range", "vocabulary_size"})
# Layers that both have and that cannot be rebuilt nevertheless.
_STRINGS = "computes with strings, which no integer model takes; look words up before the model, in the examples"
_REFUSED = {
    "RandomCrop": "leaves images whole at inference in some versions of Keras, where tf_keras crops them; crop the"
    " examples, or use CenterCrop",
    "StringLookup": _STRINGS,
    "TextVectorization": _STRINGS,
}
_DEFAULTS = (None, False, "channels_last", "floormod")
# Activation functions that both compute alike.
_COMMON_ACTIVATIONS = frozenset(
    {"elu", "exponential", "gelu", "linear", "mish", "relu", "selu", "sigmoid", "silu", "softmax", "softplus", "tanh"}
    | {"softsign"}
)


def keras3_hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """Computes `relu6(x + 3) / 6`, where tf_keras's hard_sigmoid is `clip(0.2 x + 0.5, 0, 1)`."""
    return tf.nn.relu6(x + 3.0) / 6.0


def keras3_hard_silu(x: tf.Tensor) -> tf.Tensor:
    """Computes `x relu6(x + 3) / 6`."""
    return x * keras3_hard_sigmoid(x)


def keras3_leaky_relu(x: tf.Tensor) -> tf.Tensor:
    """Computes `max(x, 0.2 x)`."""
    return tf.nn.leaky_relu(x, alpha=0.2)


def keras3_relu6(x: tf.Tensor) -> tf.Tensor:
    """Computes `min(max(x, 0), 6)`."""
    return tf.nn.relu6(x)


# What layers that apply it inside, as recurrent ones do, compute with; saved models know the functions by name.
_INNER_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    function.__name__.removeprefix("keras3_"): tf_keras.saving.register_keras_serializable("tfx_qat")(function)
    for function in (keras3_hard_sigmoid, keras3_hard_silu, keras3_leaky_relu, keras3_relu6)
}


def activation_name(function: Any) -> str:
    """Returns the name of an activation function of Keras 3's own; empty for another."""
    name = getattr(function, "__name__", "")
    return name if getattr(keras.activations, name, None) is function else ""


def activates_last(layer: Any) -> bool:
    """Returns whether the layer ends with an activation that has to become operations, or layers, of its own."""
    function = getattr(layer, "activation", None)
    if function is None or isinstance(layer, keras.layers.RNN):
        return False
    return activation_name(function) not in _COMMON_ACTIVATIONS


def converted(layer: Any, name: str = "", inner: bool = False) -> Any:
    """Returns the layer of tf_keras; its activation left out where operations follow.

    Args:
      layer: A layer of Keras 3.
      name: Its name in the model that is built; its own unless given.
      inner: Whether another layer calls it, so that no operations can follow.

    Raises:
      RefusalError: If tf_keras does not have it, or one of its arguments, or computes something else.
    """
    kind = type(layer)
    counterpart = getattr(tf_keras.layers, kind.__name__, None)
    if not is_of_keras(layer):
        raise RefusalError("is a class of your own, which only a model, or TimeDistributed, can call; write it out")
    if counterpart is None:
        raise RefusalError(f"is no layer of tf_keras; {REMEDY}")
    if kind.__name__ in _REFUSED:
        raise RefusalError(_REFUSED[kind.__name__])
    if getattr(layer, "quantization_mode", None):
        raise RefusalError("has been quantized by Keras; bring the float model")
    config = _config(layer, counterpart, inner)
    if getattr(layer, "sparse", False):
        raise RefusalError("returns sparse tensors; set sparse=False")
    return counterpart(**config | {"name": valid_name(name or layer.name)})


def require_floats(layer: Any, dtype: str) -> None:
    """Checks that a layer is not given integers with which that of tf_keras computes something else.

    Raises:
      RefusalError: If it is.
    """
    rounds = isinstance(layer, keras.layers.Resizing) and layer.interpolation != "nearest"
    if rounds and "int" in dtype:
        raise RefusalError(f"rounds what it makes of {dtype}, which tf_keras does not; give it float32")


def is_convertible(layer: Any) -> bool:
    """Returns whether a layer that another one calls can be one layer of tf_keras, and not only several."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return is_convertible(layer.layer)
    if isinstance(layer, keras.Model | keras.layers.Lambda) or not is_of_keras(layer):
        return False
    return not activates_last(layer) or activation_name(layer.activation) in _INNER_ACTIVATIONS


def _config(layer: Any, counterpart: type, inner: bool) -> dict[str, Any]:
    """The arguments for the layer of tf_keras, but for its name."""
    kind = type(layer).__name__
    config, unknown = {}, []
    accepted = _accepted(counterpart)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an activation that is a lambda, which is not taken from here
        old_config = layer.get_config()
    for key, value in old_config.items():
        key = _RENAMED.get(kind, {}).get(key, key)
        if key in accepted:
            config[key] = _argument(layer, key, value, inner)
        elif value not in _DEFAULTS and key not in _WITHOUT_EFFECT:
            unknown.append(f"{key}={value!r}")
    if unknown:
        raise RefusalError(f"is set to {', '.join(unknown)}, which tf_keras does not have; {REMEDY}")
    config = {key: value for key, value in config.items() if not key.endswith("_initializer")}
    if getattr(layer, "output_padding", None) is not None:  # which Keras 3 leaves out of the configuration
        config["output_padding"] = layer.output_padding
    if isinstance(layer, keras.layers.Bidirectional):
        config["layer"]._name = config["layer"].name.removeprefix("forward_")
    return config | _adapted(layer, config)


def _adapted(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Arguments for what `adapt` has found out, which the configuration of Keras 3 does not tell as tf_keras takes it.

    They hold what the layer's weights do, which are not copied then.
    """
    if isinstance(layer, keras.layers.Normalization):
        shape = layer._mean_and_var_shape
        return {key: np.asarray(getattr(layer, key), np.float32).reshape(shape) for key in ("mean", "variance")}
    if isinstance(layer, keras.layers.Discretization) and config["bin_boundaries"] is not None:
        return {"bin_boundaries": np.ravel(config["bin_boundaries"]).tolist(), "num_bins": None}
    if isinstance(layer, keras.layers.IntegerLookup):
        words = [int(word) for word in layer.get_vocabulary(include_special_tokens=False)]
        if layer.output_mode != "tf_idf":
            return {"vocabulary": words}
        first = len(layer.get_vocabulary()) - len(words)
        return {"vocabulary": words, "idf_weights": np.asarray(layer.idf_weights)[first : first + len(words)].tolist()}
    return {}


def _accepted(kind: type) -> frozenset[str]:
    """The names of the arguments that a layer class of tf_keras and its parents take."""
    initializers = [vars(parent)["__init__"] for parent in kind.__mro__ if "__init__" in vars(parent)]
    names = {name for function in initializers for name in inspect.signature(function).parameters}
    return _COMMON_ARGUMENTS | names - {"self", "args", "kwargs"}


def _argument(layer: Any, key: str, value: Any, inner: bool) -> Any:
    """An argument of a layer as tf_keras takes it."""
    if key == "dtype":
        return tf_keras_dtype(layer.compute_dtype)
    if isinstance(layer, keras.layers.Rescaling) and key in ("scale", "offset"):
        return np.asarray(getattr(layer, key)).tolist()  # of an array, `value` is what Keras 3 saves
    if key.endswith(("activation",)):
        return _inner_activation(layer, key, inner)
    if key in ("layer", "backward_layer", "cell"):
        return _inside(getattr(layer, "forward_layer" if hasattr(layer, "forward_layer") and key == "layer" else key))
    if key == "cells":
        return [_inside(cell) for cell in layer.cells]
    if isinstance(value, dict) and key.endswith(("_regularizer", "_constraint")):
        module = tf_keras.regularizers if key.endswith("_regularizer") else tf_keras.constraints
        counterpart = getattr(module, value["class_name"], None)
        if counterpart is None or value.get("registered_name"):
            raise RefusalError(
                f"has a {key} of class {value['class_name']}, which tf_keras does not have; leave it out"
            )
        return counterpart(**value["config"])
    return value


def _inside(layer: Any) -> Any:
    """A layer of tf_keras for one that another layer calls."""
    try:
        return converted(layer, inner=True)
    except RefusalError as error:
        raise RefusalError(f"calls {layer.name!r} ({type(layer).__name__}), which {error}") from error


def _inner_activation(layer: Any, key: str, inner: bool) -> Any:
    function = getattr(layer, key)
    name = activation_name(function)
    if name in _COMMON_ACTIVATIONS:
        return name
    if not inner and activates_last(layer):
        return "linear"
    if name not in _INNER_ACTIVATIONS:
        raise RefusalError(
            f"computes inside with {name or function!r}, which tf_keras does not have; use tanh or sigmoid"
        )
    return _INNER_ACTIVATIONS[name]
