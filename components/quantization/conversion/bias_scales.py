"""Gives biases the scale that their op computes with.

The converter quantizes a bias with the range of the op's input as it was calibrated. Where UNPACK, or another op whose
ends share one scale, gives that input another range afterwards, it leaves the bias as it was: in an unrolled recurrent
layer, the outputs of each step are off by an integer or more. With 16-bit activations all steps get one bias, in the
scale of one of them.
"""

import copy
from typing import Any

import numpy as np

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit.rules import CHANNEL_AXIS
from components.quantization.conversion.tflite_schema import schema

# 64 bits with 16-bit activations.
_DTYPES: dict[int, np.dtype[Any]] = {schema.TensorType.INT32: np.dtype("<i4"), schema.TensorType.INT64: np.dtype("<i8")}
_TOLERANCE = 1e-3


def rescaled(tflite: bytes) -> tuple[bytes, int]:
    """Requantizes biases whose scale is not that of the input times that of the weights.

    A bias that several ops take becomes several, as far as their scales differ. Zeros are left alone: they have any.

    Args:
      tflite: A TFLite flatbuffer.

    Returns:
      The flatbuffer, the same bytes where nothing was to be done, and how many biases were requantized.
    """
    model = flatbuffer.read_object(tflite)
    changed = sum(_rescale_graph(model, graph) for graph in model.subgraphs)
    return (flatbuffer.write_object(model) if changed else tflite), changed


def _rescale_graph(model: Any, graph: Any) -> int:
    operators = graph.operators or []
    inputs = [int(i) for op in operators for i in (op.inputs if op.inputs is not None else ()) if i >= 0]
    uses = np.bincount(inputs, minlength=len(graph.tensors))
    changed = 0
    for op in operators:
        code = flatbuffer.builtin_name(model.operatorCodes[op.opcodeIndex])
        at = 3 if code == "TRANSPOSE_CONV" else 2  # whose first input is a shape
        if code not in CHANNEL_AXIS or len(op.inputs) <= at or op.inputs[at] < 0:
            continue
        source, weights, bias = (graph.tensors[op.inputs[i]] for i in (2 if at == 3 else 0, 1, at))
        requantized = _rescaled(model, source, weights, bias)
        if requantized is None:
            continue
        place = int(op.inputs[at])
        if uses[place] > 1:
            uses[place] -= 1
            op.inputs = [*op.inputs[:at], len(graph.tensors), *op.inputs[at + 1 :]]
            graph.tensors.append(requantized)
        else:
            graph.tensors[place] = requantized
        changed += 1
    return changed


def _rescaled(model: Any, source: Any, weights: Any, bias: Any) -> Any | None:
    """A bias with the scale of the op's input times that of its weights; None if it has that or is no integer."""
    data, dtype = model.buffers[bias.buffer].data, _DTYPES.get(bias.type)
    scales = [tensor.quantization and tensor.quantization.scale for tensor in (source, weights, bias)]
    if dtype is None or data is None or any(scale is None or not len(scale) for scale in scales):
        return None
    old, scale = scales[2], np.float32(scales[0][0]) * np.asarray(scales[1], np.float32)
    if len(scale) != len(old) or not (scale > 0).all() or np.allclose(scale, old, rtol=_TOLERANCE, atol=0):
        return None
    steps = np.frombuffer(bytes(bytearray(data)), dtype)
    if not steps.any():
        return None
    limits = np.iinfo(dtype)
    rounded = np.rint(steps * (np.asarray(old, np.float64) / scale))
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.clip(rounded, limits.min, limits.max).astype(dtype).tobytes(), np.uint8)
    made, made.quantization = (copy.copy(part) for part in (bias, bias.quantization))
    made.buffer, made.quantization.scale = len(model.buffers), scale
    model.buffers.append(buffer)
    return made
