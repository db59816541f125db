"""How much memory a model needs on a microcontroller.

TFLite Micro places activations with a greedy planner, the largest first, each at the first offset where it overlaps
none that lives at the same time:
https://github.com/tensorflow/tflite-micro/blob/0cc6f983266d1bd6f5d66f485c546e8cc80ad6a2/tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc
"""

import dataclasses
import math

from components.quantization.conversion.flatbuffer import Subgraph, Tensor

# https://github.com/tensorflow/tflite-micro/blob/0cc6f983266d1bd6f5d66f485c546e8cc80ad6a2/tensorflow/lite/micro/micro_arena_constants.h
_ALIGNMENT = 16
_BYTES = {"INT8": 1, "UINT8": 1, "BOOL": 1, "INT16": 2, "FLOAT16": 2, "INT32": 4, "UINT32": 4, "FLOAT32": 4, "INT64": 8}
# What the interpreter keeps, as a program on a 64-bit host reports it (`RecordingMicroAllocator`, tflite-micro of
# 2026): for each tensor, op, input or output, output channel of a convolution, and for itself.
_PER_TENSOR, _PER_OP, _PER_EDGE, _PER_CHANNEL, _ONCE = 24, 64 + 72, 96, 8, 864
# Beyond `_PER_OP`, by op.
_FURTHER = {"UNIDIRECTIONAL_SEQUENCE_LSTM": 264}
_CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0}
BASIS = (
    "estimate: activations by TFLite Micro's greedy planner, and the interpreter's own data as on a 64-bit host;"
    " without the scratch buffers that optimized kernels such as CMSIS-NN's ask for"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arena:
    """An estimate of the arena.

    Attributes:
      activation_bytes: The planned part.
      persistent_bytes: What stays: data of the interpreter and of kernels, and states.
    """

    activation_bytes: int
    persistent_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.activation_bytes + self.persistent_bytes


def estimate(graph: Subgraph) -> Arena | None:
    """Returns the arena of a model; None if an op runs other subgraphs, or a size or type is unknown.

    Args:
      graph: The main subgraph.
    """
    if any(op.subgraphs for op in graph.ops):  # their activations are planned apart
        return None
    lives = _lives(graph)
    sizes = {index: _size(graph.tensors[index]) for index in lives}
    states = [_size(tensor) for tensor in graph.tensors if tensor.is_variable]
    if None in sizes.values() or None in states:
        return None
    planned = plan([(size or 0, *lives[index]) for index, size in sizes.items()])
    channels = sum(_channels(op.code, op.inputs, graph) for op in graph.ops)
    persistent = (
        _ONCE
        + _PER_TENSOR * len(graph.tensors)
        + _PER_OP * len(graph.ops)
        + _PER_EDGE * (len(graph.inputs) + len(graph.outputs))
        + _PER_CHANNEL * channels
        + sum(_FURTHER.get(op.code, 0) for op in graph.ops)
        + sum(_aligned(size or 0) for size in states)
    )
    return Arena(activation_bytes=planned, persistent_bytes=persistent)


def plan(buffers: list[tuple[int, int, int]]) -> int:
    """Returns the bytes that buffers need together.

    Args:
      buffers: Size in bytes, first and last moment of each.

    >>> plan([(100, 0, 1), (50, 1, 2), (100, 2, 3)])
    176
    """
    placed: list[tuple[int, int, int, int]] = []
    for size, first, last in sorted(buffers, key=lambda buffer: -buffer[0]):
        taken = sorted((start, end) for start, end, since, until in placed if since <= last and first <= until)
        offset = 0
        for start, end in taken:
            if offset + _aligned(size) <= start:
                break
            offset = max(offset, end)
        placed.append((offset, offset + _aligned(size), first, last))
    return max((end for _, end, _, _ in placed), default=0)


def _lives(graph: Subgraph) -> dict[int, tuple[int, int]]:
    """First and last op of each activation that is used; inputs live from the first op on, outputs to the last."""
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.inputs, 0)
    for moment, op in enumerate(graph.ops):
        for index in op.inputs:
            last[index] = moment
        for index in op.outputs:
            first.setdefault(index, moment)
            last.setdefault(index, moment)
    last |= dict.fromkeys(graph.outputs, max(len(graph.ops) - 1, 0))
    kept = (index for index in first if graph.tensors[index].constant is None and not graph.tensors[index].is_variable)
    return {index: (first[index], last[index]) for index in kept}


def _size(tensor: Tensor) -> int | None:
    width = _BYTES.get(tensor.dtype)
    return width * math.prod(tensor.shape) if width and min(tensor.shape, default=1) >= 0 else None


def _channels(code: str, inputs: tuple[int, ...], graph: Subgraph) -> int:
    axis = _CHANNELS.get(code)
    shape = graph.tensors[inputs[1]].shape if axis is not None and len(inputs) > 1 else ()
    return max(shape[axis], 0) if axis is not None and len(shape) > axis else 0


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
