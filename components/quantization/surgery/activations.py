"""Activation functions that are part of a layer become layers of their own, out of ops that integers can compute."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.surgery.graph import Call, Rewriter, symbol

TITLE = "split activations"

layers = tf_keras.layers


def _swish(x: Any, name: str) -> Any:
    return layers.Multiply(name=name)([x, layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)])


def _hard_sigmoid(x: Any, name: str) -> Any:
    # Keras 2: clip(0.2 x + 0.5, 0, 1).
    clipped = layers.ReLU(6.0, name=f"{name}_relu6")(layers.Rescaling(1.2, 3.0, name=f"{name}_rescaling")(x))
    return layers.Rescaling(1.0 / 6.0, name=name)(clipped)


def _elu(x: Any, name: str, alpha: float = 1.0) -> Any:
    # The converter leaves TFLite's ELU in floats, though there is a kernel for integers.
    negative = (tf.exp(tf.minimum(x, 0.0)) - 1.0) * alpha if alpha != 1.0 else tf.exp(tf.minimum(x, 0.0)) - 1.0
    return layers.Add(name=name)([layers.ReLU(name=f"{name}_relu")(x), negative])


def _selu(x: Any, name: str) -> Any:
    scale, alpha = 1.05070098, 1.67326324  # https://arxiv.org/abs/1706.02515
    return layers.Rescaling(scale, name=name)(_elu(x, f"{name}_elu", alpha))


# What each activation function becomes; the others stay one layer.
_BUILDERS: dict[str, Callable[[Any, str], Any]] = {
    "relu": lambda x, name: layers.ReLU(name=name)(x),
    "relu6": lambda x, name: layers.ReLU(6.0, name=name)(x),
    "elu": _elu,
    "leaky_relu": lambda x, name: layers.LeakyReLU(0.2, name=name)(x),
    "softmax": lambda x, name: layers.Softmax(name=name)(x),
    "swish": _swish,
    "silu": _swish,
    "hard_sigmoid": _hard_sigmoid,
    "selu": _selu,
}
KNOWN = frozenset(_BUILDERS)
# Those that are called as functions of TensorFlow.
_FUNCTIONS = ("swish", "silu", "elu", "selu")
# Layers whose `activation` argument is applied last, to their only output.
_FUSED = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.Conv2DTranspose,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)


def activation_name(layer: Any) -> str:
    """Returns the name of a layer's activation function; empty without one."""
    function = getattr(layer, "activation", None)
    if function is None:
        return ""
    return str(getattr(function, "__name__", None) or type(function).__name__)


def applies(call: Call) -> bool:
    """Whether the call's layer applies an activation function that is to become layers."""
    layer = call.layer
    if isinstance(layer, layers.Activation):
        return activation_name(layer) in _BUILDERS
    if symbol(layer):
        return symbol(layer) in _FUNCTIONS or _bounds(call) is not None
    if isinstance(layer, layers.ELU):
        return True
    if isinstance(layer, layers.ReLU):
        return bool(layer.negative_slope) or bool(layer.threshold) or layer.max_value not in (None, 6.0)
    return isinstance(layer, _FUSED) and activation_name(layer) != "linear"


def rewrite(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rewriter: Rewriter) -> Any:
    """Makes the layer linear and applies its activation function behind it."""
    layer = call.layer
    if isinstance(layer, layers.ELU):
        return _elu(args[0], rewriter.unique(layer.name, layer), float(layer.alpha))
    if isinstance(layer, layers.ReLU):
        return _clipped(layer, args[0], rewriter)
    bounds = _bounds(call)
    if bounds is not None:
        pairs = zip(tf.nest.flatten((call.args, call.kwargs)), tf.nest.flatten((args, kwargs)), strict=True)
        x = next(new for old, new in pairs if old is call.inputs[0])
        return _clip(x, *bounds, rewriter.unique(layer.name, layer))
    if symbol(layer):
        return _BUILDERS[symbol(layer)](args[0] if args else kwargs["features"], rewriter.unique(layer.name, layer))
    function = activation_name(layer)
    if isinstance(layer, layers.Activation):
        return _BUILDERS[function](args[0], rewriter.unique(layer.name, layer))
    values = rewriter.copy(layer, {"activation": "linear"})(*args, **kwargs)
    if isinstance(layer.activation, layers.Layer):
        return rewriter.copy(layer.activation)(values)
    name = rewriter.unique(f"{layer.name}_{function.lower()}")
    if function in _BUILDERS:
        return _BUILDERS[function](values, name)
    return layers.Activation(layer.activation, name=name)(values)


def _clipped(layer: Any, x: Any, rewriter: Rewriter) -> Any:
    """A ReLU with another bound than 6 is scaled to ReLU6; one with a slope leaks."""
    bound, slope = layer.max_value, float(layer.negative_slope)
    if layer.threshold or (slope and bound is not None):
        return rewriter.copy(layer)(x)
    name = rewriter.unique(layer.name, layer)
    return layers.LeakyReLU(slope, name=name)(x) if bound is None else _clip(x, 0.0, bound, name)


def _constants(call: Call) -> list[float]:
    """The numbers that a function of one tensor is called with; none if there is anything else."""
    others = [
        value for value in (*call.args, *call.kwargs.values()) if value is not call.inputs[0] and value is not None
    ]
    arrays = [np.ravel(value) for value in others if isinstance(value, int | float | np.ndarray | tf.Tensor)]
    return [float(array[0]) for array in arrays] if [array.size for array in arrays] == [1] * len(others) else []


def _bounds(call: Call) -> tuple[float, float | None] | None:
    """Between which numbers the call clips its only tensor, where the converter makes a ReLU of that; None otherwise.

    It does so even with -1 and 1, and gives that ReLU no range.
    """
    name = symbol(call.layer)
    if name not in ("clip_by_value", "maximum") or len(call.inputs) != 1 or not call.outputs[0].dtype.is_floating:
        return None
    constants = _constants(call)
    if name == "maximum":
        return (0.0, None) if constants == [0.0] else None
    known = len(constants) == 2 and constants[1] > 0.0 and (constants[0] == 0.0 or constants == [-1.0, 1.0])
    return (constants[0], constants[1]) if known else None


def _clip(x: Any, lower: float, upper: float | None, name: str) -> Any:
    """A ReLU between two bounds. With others than those of ReLU6 it is the same line, scaled to that."""
    if upper is None or (lower, upper) == (0.0, 6.0):
        return layers.ReLU(upper, name=name)(x)
    scale = 6.0 / (float(upper) - lower)
    scaled = layers.Rescaling(scale, -lower * scale, name=f"{name}_scaled")(x)
    clipped = layers.ReLU(6.0, name=f"{name}_relu6")(scaled)
    return layers.Rescaling(1.0 / scale, lower, name=name)(clipped)
