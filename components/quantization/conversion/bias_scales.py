"""Gives biases the scale that their op computes with.

The converter quantizes a bias with the range of the op's input as it was calibrated. Where UNPACK, or another op whose
ends share one scale, gives that input another range afterwards, it leaves the bias as it was: in an unrolled recurrent
layer, the outputs of each step are off by an integer or more.
"""

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit.rules import CHANNEL_AXIS

_INT32 = schema.TensorType.INT32
_TOLERANCE = 1e-3


def rescaled(tflite: bytes) -> tuple[bytes, int]:
    """Requantizes int32 biases whose scale is not that of the input times that of the weights.

    A bias that several ops take is left alone.

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
        if code in CHANNEL_AXIS and len(op.inputs) > at and op.inputs[at] >= 0 and uses[op.inputs[at]] == 1:
            source, weights, bias = (graph.tensors[op.inputs[i]] for i in (2 if at == 3 else 0, 1, at))
            changed += bias.type == _INT32 and _rescale(model, source, weights, bias)
    return changed


def _rescale(model: Any, source: Any, weights: Any, bias: Any) -> bool:
    old, buffer = bias.quantization, model.buffers[bias.buffer]
    scales = [tensor.quantization and tensor.quantization.scale for tensor in (source, weights, bias)]
    if not bias.buffer or any(scale is None or not len(scale) for scale in scales):
        return False
    scale = np.float32(scales[0][0]) * np.asarray(scales[1], np.float32)
    if len(scale) != len(old.scale) or not (scale > 0).all() or np.allclose(scale, old.scale, rtol=_TOLERANCE, atol=0):
        return False
    values = np.frombuffer(bytes(bytearray(buffer.data)), "<i4") * (np.asarray(old.scale, np.float64) / scale)
    steps = np.clip(np.rint(values), -(2**31), 2**31 - 1).astype("<i4")
    requantized = type(buffer)()
    requantized.data = np.frombuffer(steps.tobytes(), np.uint8)
    bias.buffer, old.scale = len(model.buffers), scale
    model.buffers.append(requantized)
    return True
