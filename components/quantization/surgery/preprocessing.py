"""A chain of products, sums, Rescaling and Normalization on an input of the model becomes one ChannelAffine.

So one op is left of it, or none: where what follows is linear, quantization folds it into that layer's weights, which
then take the input's integers as they are.
"""

import numbers
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.surgery.affine import ChannelAffine
from components.quantization.surgery.graph import Call, Rewriter, consumers, rebuilt, symbol

TITLE = "merge arithmetic on the input"

Chain = list[Call]
# Gains and offsets, one for each channel or one for all.
Affine = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def chains(model: tf_keras.Model) -> list[Chain]:
    """Returns the chains of affine calls that begin at an input of a functional model and that nothing else looks into.

    Chains that are one ChannelAffine already are left out.
    """
    users = consumers(model)
    outputs = {id(tensor) for tensor in model.outputs}
    found = []
    for tensor in model.inputs:
        for first in users.get(id(tensor), []):
            chain: Chain = []
            following = [first]
            while len(following) == 1 and _affine(following[0]) is not None:
                chain.append(following[0])
                made = id(chain[-1].outputs[0])
                following = [] if made in outputs else users.get(made, [])
            if chain and not (len(chain) == 1 and isinstance(chain[0].layer, ChannelAffine)):
                found.append(chain)
    return found


def merged(model: tf_keras.Model) -> tf_keras.Model:
    """Returns the model with one ChannelAffine for each chain, called like its last layer."""
    rewriter = Rewriter(model)
    last = {id(chain[-1].outputs[0]): chain for chain in chains(model)}
    inner = {id(call.outputs[0]) for chain in last.values() for call in chain[:-1]}

    def handler(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = id(call.outputs[0])
        if made not in inner and made not in last:
            return rewriter.copy(call.layer)(*args, **kwargs)
        place = [id(leaf) for leaf in tf.nest.flatten((call.args, call.kwargs))].index(id(call.inputs[0]))
        x = tf.nest.flatten((args, kwargs))[place]
        if made in inner:
            return x
        gain, offset = _composed(last[made])
        ones = np.ones(int(x.shape[-1]))
        affine = ChannelAffine(trainable=False, name=rewriter.unique(call.layer.name, call.layer))
        rewriter.give_weights(affine, [gain * ones, offset * ones])
        return affine(x)

    after = rebuilt(model, handler)
    rewriter.finish()
    return after


def _composed(chain: Chain) -> Affine:
    gain, offset = np.ones(1), np.zeros(1)
    for found in map(_affine, chain):
        if found is not None:
            gain, offset = gain * found[0], offset * found[0] + found[1]
    return gain, offset


def _affine(call: Call) -> Affine | None:
    """The gain and offset of a call; None if it is not affine in its one input, channel by channel."""
    shape = call.outputs[0].shape
    if len(call.inputs) != 1 or len(shape) < 2 or None in tuple(shape[1:]) or not call.outputs[0].dtype.is_floating:
        return None
    if tuple(call.inputs[0].shape) != tuple(shape):  # a constant of more channels, or of higher rank
        return None
    if isinstance(call.layer, ChannelAffine):  # its weights are those of a frozen Rescaling or Normalization
        gain, offset = (np.asarray(value, np.float64) for value in call.layer.get_weights())
        return None if call.layer.trainable else (gain, offset)
    name = symbol(call.layer)
    if name not in ("multiply", "mul", "add", "bias_add", "subtract", "sub"):
        return None
    keys = ("x", "y", "value", "bias")
    operands = [*call.args[:2], *(call.kwargs[key] for key in keys if key in call.kwargs)]
    constants = [_constant(operand) for operand in operands if operand is not call.inputs[0]]
    if len(operands) != 2 or len(constants) != 1 or constants[0] is None or constants[0].size not in (1, shape[-1]):
        return None
    constant = constants[0].ravel()
    if name in ("multiply", "mul"):
        return constant, np.zeros(1)
    if name in ("add", "bias_add"):
        return np.ones(1), constant
    first = operands[0] is call.inputs[0]
    return (np.ones(1), -constant) if first else (-np.ones(1), constant)


def _constant(operand: Any) -> npt.NDArray[np.float64] | None:
    """A constant that differs along its last axis alone; None for another."""
    if not isinstance(operand, numbers.Number | np.ndarray | tf.Tensor | list | tuple):
        return None
    values = np.asarray(operand, np.float64)
    return values if values.size in (1, *values.shape[-1:]) else None
