"""The large weights of a trained model, kept beside its graph while that is converted.

TensorFlow's converter holds each constant six to eight times, as floats. Weights of training lie on the grid of their
integers already: their scales are all that it needs to know. So a constant of one repeated value goes through it in
their place, fake-quantized with their scales, and the integers are put into the file that comes out. That constant is
as for a convolution in as many groups of channels as there can be, which is small; all else of the op is the same.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.frozen_graph import freeze, put_constant
from components.quantization.conversion.rewrites import lower_version
from components.quantization.conversion.tflite_schema import schema

LARGE = 2**16  # values; below that it is not worth while
_LARGEST_CODE = 127
# The share of a step by which floats miss the grid that they were rounded to.
_ON_GRID = 1e-3
# A channel of zeros has no scale.
_SMALLEST = 1e-12
# How the axes of TensorFlow's weights lie in TFLite's, by op, and what op that becomes.
_AXES = {"Conv2D": (3, 0, 1, 2), "MatMul": (1, 0)}
_OPS = {"Conv2D": "CONV_2D", "MatMul": "FULLY_CONNECTED"}


class NotRestoredError(Exception):
    """The converter made something else of weights than was foreseen; they must go through it themselves."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LargeWeights:
    """Weights that are kept beside a graph.

    Attributes:
      node: The node of fake quantization that stands for them.
      op: Which op of TFLite computes with them.
      codes: The integers, int8, of shape (outputs, height, width, inputs) or (outputs, inputs).
      scale: float32, of shape (outputs,) or (1,).
      groups: Of how many groups of channels the convolution is while another constant stands for the weights.
    """

    node: str
    op: str
    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    groups: int = 1

    @property
    def stand_in(self) -> tuple[int, ...]:
        """The shape of the constant that stands for them, its axes as those of the integers."""
        return (*self.codes.shape[:-1], self.codes.shape[-1] // self.groups)


def may_be_large(concrete: Any) -> bool:
    """Returns whether a concrete function has variables so large that they may be kept apart."""
    return any((variable.shape.num_elements() or 0) >= LARGE for variable in concrete.variables)


def freeze_aside(concrete: Any, per_channel: bool, large: int = LARGE) -> tuple[Any, tuple[LargeWeights, ...]]:
    """Freezes a function, as `freeze`, but keeps the large weights of its convolutions and Dense layers apart.

    Args:
      concrete: A concrete function, its weights rounded to 8-bit integers.
      per_channel: Whether weights of convolutions get one scale per output channel.
      large: From how many values on weights are large.
    """
    aside: list[LargeWeights] = []
    channels = {op.name: op.inputs[0].shape[-1] for op in concrete.graph.get_operations() if op.type == "Conv2D"}

    def put(definition: Any, name: str, value: Any, takers: Sequence[Any]) -> str:
        found = _weights(f"{name}/weights", value, takers, per_channel) if value.shape.num_elements() >= large else None
        if found is None:
            return put_constant(definition, name, value, takers)
        inputs = found.codes.shape[-1]
        if channels.get(takers[0].name) == inputs:  # not of groups itself
            found = dataclasses.replace(found, groups=_most_groups(inputs, found.codes.shape[0]))
        aside.append(found)
        _put_stand_in(definition, name, found)
        return found.node

    return freeze(concrete, put), tuple(aside)


def restored(tflite: bytes, weights: Sequence[LargeWeights]) -> bytes:
    """Returns a converted file with the weights in it that were kept apart.

    Raises:
      NotRestoredError: If it computes otherwise with them than in one op each, by the scales foreseen.
    """
    if not weights:
        return tflite
    model = flatbuffer.read_object(tflite)
    users = [0] * len(model.buffers)
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        users[tensor.buffer] += 1
    places = _places(model, {one.node for one in weights})
    for one in weights:
        if len(places.get(one.node, ())) != 1:
            raise NotRestoredError(f"{one.node} is taken by {len(places.get(one.node, ()))} ops")
        ((op, tensor),) = places[one.node]
        if op != one.op or not _agree(tensor, one):
            raise NotRestoredError(f"{one.node} became weights of {op} of shape {list(tensor.shape)}")
        if users[tensor.buffer] > 1:  # equal constants share one
            users[tensor.buffer] -= 1
            tensor.buffer = len(model.buffers)
            users.append(1)
            model.buffers.append(schema.BufferT())
        model.buffers[tensor.buffer].data = one.codes.ravel().view(np.uint8)
        tensor.shape = list(one.codes.shape)
    if any(one.groups > 1 for one in weights):
        lower_version(model, "CONV_2D")
    return flatbuffer.write_object(model)


def _weights(node: str, value: Any, takers: Sequence[Any], per_channel: bool) -> LargeWeights | None:
    """The integers of a constant; None if it is not the weights of one op, or not on their grid."""
    if len(takers) != 1 or takers[0].op not in _AXES or value.dtype != tf.float32:
        return None
    (taker,) = takers
    axes = _AXES[taker.op]
    # To ask a node for an attribute that its op has not would give it one.
    if len(value.shape) != len(axes) or (taker.op == "MatMul" and taker.attr["transpose_b"].b):
        return None
    floats = value.numpy()
    inner = tuple(range(floats.ndim - 1)) if per_channel and taker.op == "Conv2D" else None
    largest = np.atleast_1d(np.abs(floats).max(axis=inner))
    if not largest.min() > _SMALLEST:
        return None
    scale = largest.astype(np.float64) / _LARGEST_CODE
    steps = floats / scale.astype(np.float32)
    codes = np.rint(steps)
    if np.abs(steps - codes).max() > _ON_GRID:
        return None
    return LargeWeights(
        node=node,
        op=_OPS[taker.op],
        codes=np.ascontiguousarray(codes.astype(np.int8).transpose(axes)),
        scale=scale.astype(np.float32),
    )


def _most_groups(inputs: int, outputs: int) -> int:
    """Of how many groups a convolution can be; with one input channel in each it would be a depthwise one."""
    common = math.gcd(inputs, outputs)
    return next((groups for groups in range(common, 1, -1) if common % groups == 0 and inputs // groups > 1), 1)


def _put_stand_in(definition: Any, name: str, weights: LargeWeights) -> None:
    largest = weights.scale * np.float32(_LARGEST_CODE)
    constant = definition.node.add(name=name, op="Const")
    constant.attr["dtype"].type = tf.float32.as_datatype_enum
    constant.attr["value"].tensor.dtype = tf.float32.as_datatype_enum
    axes = _AXES[next(op for op, code in _OPS.items() if code == weights.op)]
    shape = tf.TensorShape([weights.stand_in[axes.index(axis)] for axis in range(len(axes))])
    constant.attr["value"].tensor.tensor_shape.CopyFrom(shape.as_proto())
    constant.attr["value"].tensor.float_val.append(float(largest.min()) / 2)  # one value for all
    per_channel = len(largest) > 1
    ends = {"minimum": -largest, "maximum": largest}
    for end, values in ends.items():
        put_constant(definition, f"{weights.node}/{end}", tf.constant(values if per_channel else values[0]))
    rounded = definition.node.add(name=weights.node, op=f"FakeQuantWithMinMaxVars{'PerChannel' * per_channel}")
    rounded.input.extend([name, *(f"{weights.node}/{end}" for end in ends)])
    rounded.attr["num_bits"].i = 8
    rounded.attr["narrow_range"].b = True


def _places(model: Any, nodes: set[str]) -> dict[str, list[tuple[str, Any]]]:
    """The ops that take what stands for weights, and the tensors, by node; fused tensors bear several names."""
    names = [flatbuffer.builtin_name(code) for code in model.operatorCodes]
    places: dict[str, list[tuple[str, Any]]] = {}
    for graph in model.subgraphs:
        stands = [nodes.intersection((tensor.name or b"").decode().split(";")) for tensor in graph.tensors]
        for operator in graph.operators:
            for position, index in enumerate(operator.inputs):
                for node in stands[index] if index >= 0 else ():
                    op = names[operator.opcodeIndex] if position == 1 else f"{names[operator.opcodeIndex]}, elsewhere"
                    places.setdefault(node, []).append((op, graph.tensors[index]))
    return places


def _agree(tensor: Any, weights: LargeWeights) -> bool:
    quantization = tensor.quantization
    return bool(
        tensor.type == schema.TensorType.INT8
        and tuple(tensor.shape) == weights.stand_in
        and quantization is not None
        and np.array_equal(np.asarray(quantization.scale, np.float32), weights.scale)
        and not np.any(quantization.zeroPoint)
    )
