"""Gives biases the scale that their op computes with.

The converter quantizes a bias with the range of the op's input as it was calibrated. Where UNPACK, or another op whose
ends share one scale, gives that input another range afterwards, it leaves the bias as it was: in an unrolled recurrent
layer, the outputs of each step are off by an integer or more. With 16-bit activations all steps get one bias, in the
scale of one of them. The biases of an LSTM's gates are left behind in the same way.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from components.quantization.conversion import flatbuffer
from components.quantization.conversion import lstm_operands as lstm
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
        for source, weights, at in _products(flatbuffer.builtin_name(model.operatorCodes[op.opcodeIndex]), op):
            place = int(op.inputs[at])
            requantized = _rescaled(model, *(graph.tensors[index] for index in (source, weights, place)))
            if requantized is None:
                continue
            if uses[place] > 1:
                uses[place] -= 1
                op.inputs = [*op.inputs[:at], len(graph.tensors), *op.inputs[at + 1 :]]
                graph.tensors.append(requantized)
            else:
                graph.tensors[place] = requantized
            changed += 1
    return changed


def _products(code: str, op: Any) -> Iterator[tuple[int, int, int]]:
    """The tensors of an op whose product a bias is added to, and the bias's position among the op's inputs."""
    inputs = [] if op.inputs is None else list(map(int, op.inputs))
    if code in CHANNEL_AXIS:
        at = 3 if code == "TRANSPOSE_CONV" else 2  # whose first input is a shape
        found = [(inputs[2 if at == 3 else 0], inputs[1], at)] if len(inputs) > at else []
    elif code == lstm.SEQUENCE_LSTM:
        found = []
        normalization = inputs[lstm.NORMALIZATION.start : lstm.NORMALIZATION.stop]
        if all(one < 0 for one in normalization):  # else a bias is added behind it, in a scale of its own
            # The kernel adds it to the product of the input, not to that of the state.
            gates = zip(lstm.GATES, lstm.BIASES, strict=True)
            found += [(inputs[lstm.SOURCE], inputs[gate], bias) for gate, bias in gates]
        if op.intermediates is not None and len(op.intermediates) == lstm.INTERMEDIATES:
            found.append((int(op.intermediates[-1]), inputs[lstm.PROJECTION], lstm.PROJECTION_BIAS))
    else:
        found = []
    yield from (one for one in found if one[1] >= 0 and inputs[one[2]] >= 0)


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
