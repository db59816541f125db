"""Packs the weights of an integer model two per byte, as tensors of type INT4.

TensorFlow's converter makes 8-bit weights out of weights on a 4-bit grid: 7 steps become 127, and the grid's own step s
becomes s * 7 / 127. That is undone here, exactly; biases, whose unit is the product of the scales of input and weights,
are rounded to the wider unit. Kernels of the stock interpreter unpack such weights:
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/conv.cc
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.tflite_schema import schema

# The version of each op that has a kernel for INT4 weights, and the first TensorFlow with all of them:
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/tools/versioning/runtime_version.cc
_OP_VERSIONS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10}
_MINIMUM_RUNTIME = "2.11.0"
_MAX_INT4 = 7
_MAX_INT8 = 127


def pack(tflite: bytes, *, rounding: bool) -> tuple[bytes, int]:
    """Packs the weights of CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED of 8-bit inputs; others have no such kernel.

    Args:
      tflite: A flatbuffer with 8-bit weights.
      rounding: Whether to round weights that are on no 4-bit grid, as those of a float model; else they stay as they
        are.

    Returns:
      The flatbuffer with 4-bit weights, and how many tensors were packed.
    """
    model = flatbuffer.read_object(tflite)
    packed = 0
    for graph in model.subgraphs:
        for weights, operators in _weights(model, graph):
            buffer = model.buffers[weights.buffer]
            steps, on_grid = _int4_steps(np.frombuffer(bytes(bytearray(buffer.data)), np.int8))
            if not (on_grid or rounding):
                continue
            packed += 1
            weights.type = schema.TensorType.INT4
            _replace(model, weights, flatbuffer.packed_int4(steps))
            for bias in {int(operator.inputs[2]) for operator in operators if len(operator.inputs) > 2} - {-1}:
                _coarsen_bias(model, graph.tensors[bias])
            for operator in operators:
                code = model.operatorCodes[operator.opcodeIndex]
                code.version = max(code.version, _OP_VERSIONS[flatbuffer.builtin_name(code)])
    if packed:
        _raise_minimum_runtime(model)
    return flatbuffer.write_object(model), packed


def _weights(model: Any, graph: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Yields the tensors of 8-bit weights that only ops with a kernel for 4 bits use, with those ops."""
    users: dict[int, list[Any]] = {}
    for operator in graph.operators or []:
        inputs = [int(i) for i in operator.inputs] if operator.inputs is not None else []
        known = flatbuffer.builtin_name(model.operatorCodes[operator.opcodeIndex]) in _OP_VERSIONS
        kernel = known and graph.tensors[inputs[0]].type == schema.TensorType.INT8
        for place, index in enumerate(inputs):
            users.setdefault(index, []).append(operator if kernel and place == 1 else None)
    for index, operators in users.items():
        if index < 0 or None in operators:
            continue
        tensor = graph.tensors[index]
        content = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.INT8 and content is not None and len(content):
            yield tensor, operators


def _int4_steps(weights: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.int8], bool]:
    """Returns 8-bit weights in steps of 4 bits, and whether they were on that grid."""
    steps = np.rint(weights.astype(np.float64) * _MAX_INT4 / _MAX_INT8)
    on_grid = np.array_equal(np.rint(steps * _MAX_INT8 / _MAX_INT4), weights)
    return steps.astype(np.int8), on_grid


def _coarsen_bias(model: Any, bias: Any) -> None:
    values = np.frombuffer(bytes(bytearray(model.buffers[bias.buffer].data)), "<i4")
    _replace(model, bias, np.rint(values * (_MAX_INT4 / _MAX_INT8)).astype("<i4").tobytes())


def _replace(model: Any, tensor: Any, content: bytes) -> None:
    """Gives a tensor a buffer of its own, with its values in units that are 127 / 7 times as large."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    scale = np.asarray(tensor.quantization.scale, np.float64) * _MAX_INT8 / _MAX_INT4
    tensor.quantization.scale = scale.astype(np.float32)


def _raise_minimum_runtime(model: Any) -> None:
    """Corrects the metadata that names the first TensorFlow with all kernels; empty where calibration came last."""
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            buffer = model.buffers[entry.buffer]
            version = bytes(bytearray(buffer.data)).rstrip(b"\0").decode()
            latest = max(version or "0", _MINIMUM_RUNTIME, key=lambda text: [int(part) for part in text.split(".")])
            buffer.data = np.frombuffer(latest.encode().ljust(len(buffer.data), b"\0"), np.uint8)
