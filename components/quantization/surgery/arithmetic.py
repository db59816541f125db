"""Layers that do arithmetic become ops of two operands, and affine ones a ChannelAffine."""

import functools
import numbers
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.surgery.affine import ChannelAffine
from components.quantization.surgery.graph import Call, Rewriter, symbol

TITLE = "rewrite arithmetic"

layers = tf_keras.layers
_CHAINS = (layers.Add, layers.Multiply, layers.Maximum, layers.Minimum)
_DIVISIONS = ("divide", "truediv")


def applies(call: Call) -> bool:
    """Whether the call is of a layer that this step rewrites."""
    layer = call.layer
    if type(layer) in _CHAINS:
        return len(call.inputs) > 2
    if isinstance(layer, layers.Normalization):
        return _is_per_channel(call, layer.mean)
    if isinstance(layer, layers.Rescaling):
        return _is_per_channel(call, layer.scale) and _is_per_channel(call, layer.offset)
    if isinstance(layer, layers.TimeDistributed):
        return isinstance(layer.layer, layers.Dense | layers.Activation | layers.ReLU)
    if symbol(layer) in _DIVISIONS:
        return _constant_operand(call) is not None
    return isinstance(layer, layers.Average) or symbol(layer) in ("negative", "add_n") or _power(call) is not None


def rewrite(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rewriter: Rewriter) -> Any:
    """Returns the same values by other layers."""
    layer = call.layer
    name = rewriter.unique(layer.name, layer)
    if isinstance(layer, layers.Rescaling):
        return _affine(args[0], np.ravel(layer.scale), np.ravel(layer.offset), name, rewriter)
    if isinstance(layer, layers.Normalization):
        scale = 1.0 / np.maximum(np.sqrt(np.ravel(layer.variance)), tf_keras.backend.epsilon())
        offset = -np.ravel(layer.mean) * scale
        if layer.invert:
            scale, offset = 1.0 / scale, np.ravel(layer.mean)
        return _affine(args[0], scale, offset, name, rewriter)
    if isinstance(layer, layers.TimeDistributed):
        return rewriter.copy(layer.layer)(args[0])
    if symbol(layer) in _DIVISIONS:
        return tf.multiply(args[0], 1.0 / _constant_operand(call))
    if symbol(layer) == "negative":
        return tf.multiply(args[0], -1.0)
    if symbol(layer) == "add_n":
        return functools.reduce(tf.add, args[0] if args else kwargs["inputs"])
    power = _power(call)
    if power is not None:
        return functools.reduce(tf.multiply, [args[0]] * power)
    kind = layers.Add if isinstance(layer, layers.Average) else type(layer)
    operands = list(args[0])
    result = operands[0]
    last = len(operands) - 1
    for index, operand in enumerate(operands[1:], start=1):
        done = index == last and kind is type(layer)
        result = kind(name=name if done else f"{name}_{index}")([result, operand])
    return tf.multiply(result, 1.0 / len(operands)) if isinstance(layer, layers.Average) else result


def _power(call: Call) -> int | None:
    """The exponent, where it is one that products of the only tensor make."""
    if symbol(call.layer) == "square":
        return 2
    operands = [*call.args, *call.kwargs.values()]
    if symbol(call.layer) != "pow" or len(call.inputs) != 1 or operands[0] is not call.inputs[0]:
        return None
    exponent = operands[1]
    return int(exponent) if isinstance(exponent, int | float) and exponent in (2, 3) else None


def _is_per_channel(call: Call, constant: Any) -> bool:
    """Whether a constant is one number, or one for each element along the last axis."""
    shape, channels = np.shape(constant), call.inputs[0].shape[-1]
    return int(np.prod(shape)) == 1 or (int(np.prod(shape)) == shape[-1] == channels)


def _constant_operand(call: Call) -> Any:
    """The divisor, where it is a constant and the dividend a tensor; None otherwise."""
    operands = [*call.args, *(call.kwargs[key] for key in ("x", "y") if key in call.kwargs)]
    if len(call.inputs) != 1 or len(operands) < 2 or operands[0] is not call.inputs[0]:
        return None
    divisor = operands[1]
    if isinstance(divisor, list | tuple | tf.Tensor):
        divisor = np.asarray(divisor, np.float32)
    return divisor if isinstance(divisor, numbers.Number | np.ndarray) else None


def _affine(x: Any, scale: Any, offset: Any, name: str, rewriter: Rewriter) -> Any:
    """`scale * x + offset`, per channel: a product where a number without offset will do."""
    if not np.any(offset) and scale.size == 1:
        return tf.multiply(x, float(scale.item()))
    ones = np.ones(int(x.shape[-1]), np.float32)
    affine = ChannelAffine(trainable=False, name=name)
    rewriter.give_weights(affine, [scale * ones, offset * ones])
    return affine(x)
