"""How many bytes of parameters a compiled model keeps on the chip, and how many it streams at each inference.

The compiler lays weights out for 16 tiles and pads them, which is why a model's parameters take more than its file. The
layout is documented nowhere: it is deduced from compiled models in public, most of which it gives to the byte or to
some hundred bytes. Not in it is what the compiler adds for moving data (a RESHAPE from a depth that is no multiple of
4, a TRANSPOSE, a FULLY_CONNECTED with computed weights), and that it leaves out a bias of zeros.
"""

import dataclasses
from collections.abc import Iterable

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.flatbuffer import Tensor
from components.targets import Mapping
from components.targets._operation import Operation, elements, read_operations

_TILES = 16
_ALIGNMENT = 64
# Channels and taps go in groups of four bytes.
_GROUP = 4
# Per output channel: a bias, and two numbers more for a scale of its own.
_BIAS_BYTES, _SCALE_BYTES = 4, 8
# What is left of the 8 MiB for parameters beside a small program: logs of compilers 14.1 to 16.0 have 7.7 MiB at most,
# less for large activations or many ops, down to 6 MiB for YOLOv5s.
_CACHE_BYTES = round(7.7 * 2**20)
# Dense weights of more inputs are streamed: in what is public those of 9,504 are, those of 5,904 are cached.
_LONGEST_CACHED_ROW = 8_192
_WITH_WEIGHTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_MOVES_DATA = frozenset({"TRANSPOSE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "TRANSPOSE_CONV"})
_EIGHT_BITS = frozenset({"INT8", "UINT8"})
_SURE, _UNSURE = 0.9, 0.4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParameterMemory:
    """Where the parameters of a compiled model lie.

    Attributes:
      cached_bytes: On the chip, loaded once: "On-chip memory used for caching model parameters".
      streamed_bytes: Off the chip, sent at each inference: "Off-chip memory used for streaming uncached parameters".
      confidence: How sure that is, 0..1; low where the compiler adds parameters of its own to move data.
    """

    cached_bytes: int
    streamed_bytes: int
    confidence: float

    @property
    def total_bytes(self) -> int:
        """Both."""
        return self.cached_bytes + self.streamed_bytes


def parameter_memory(tflite: bytes, mapping: Mapping) -> ParameterMemory:
    """Estimates the parameter memory of a model as the compiler would compile it.

    Args:
      tflite: A TFLite flatbuffer.
      mapping: Which of its ops run on the Edge TPU.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    operations = read_operations(tflite, flatbuffer.read_subgraphs(tflite)[0], Operation)
    return place([operation for operation, op in zip(operations, mapping.ops, strict=True) if op.on_target])


def place(operations: Iterable[Operation]) -> ParameterMemory:
    """Places the parameters of mapped ops: weights are cached in their order while there is room.

    Constants that are no weights, and rows of weights that are very long, are streamed.

    Args:
      operations: The mapped ops, in their order.
    """
    cached = streamed = 0
    confidence = _SURE
    for operation in operations:
        size = parameter_bytes(operation)
        if _streamed(operation) or cached + size > _CACHE_BYTES:
            streamed += size
        else:
            cached += size
        if _adds_parameters(operation):
            confidence = _UNSURE
    if streamed:
        confidence = min(confidence, (_SURE + _UNSURE) / 2)
    return ParameterMemory(cached_bytes=cached, streamed_bytes=streamed, confidence=confidence)


def parameter_bytes(operation: Operation) -> int:
    """Returns the bytes that the parameters of an op take on the Edge TPU, its padding with them."""
    weights = operation.operands[1] if operation.code in _WITH_WEIGHTS and len(operation.operands) > 1 else None
    if weights is not None and weights.constant is not None and len(weights.shape) in (2, 4):
        outputs, size = _weights(operation, weights.shape)
        bias = len(operation.operands) > 2 and operation.operands[2] is not None
        per_output = (_BIAS_BYTES if bias else 0) + (_SCALE_BYTES if len(weights.scale) > 1 else 0)
        return _up(size + per_output * outputs, _ALIGNMENT)
    return sum(_up(elements(t.shape), _ALIGNMENT) for t in _constant_data(operation))


def _weights(operation: Operation, shape: tuple[int, ...]) -> tuple[int, int]:
    """Outputs as they are padded, and the bytes of the weights."""
    if operation.code == "FULLY_CONNECTED":
        outputs, inputs = shape[0], elements(shape[1:])
        return _up(outputs, _TILES), _lanes(outputs) * inputs
    if operation.code == "DEPTHWISE_CONV_2D":
        taps, outputs = elements(shape[1:3]), shape[3]
        single = operation.input is not None and operation.input.shape[-1:] == (1,)
        padded = _lanes(outputs) if single else _up(outputs, _GROUP)
        return padded, padded * taps * _GROUP
    padded = _lanes(shape[0])
    return padded, padded * elements(shape[1:3]) * _up(shape[3], _GROUP)


def _lanes(outputs: int) -> int:
    """Outputs padded so that each tile has 1, 2, 3 or a multiple of 4 of them."""
    each = -(-outputs // _TILES)
    return _TILES * (each if each < _GROUP else _up(each, _GROUP))


def _constant_data(operation: Operation) -> list[Tensor]:
    """Constants that are calculated with like data; one number is part of the program."""
    constants = (t for t in operation.operands if t is not None and t.constant is not None)
    return [t for t in constants if t.dtype in _EIGHT_BITS and elements(t.shape) > 1]


def _streamed(operation: Operation) -> bool:
    """Whether parameters are streamed even where there is room: constant data, and very long rows of weights."""
    weights = operation.operands[1] if operation.code in _WITH_WEIGHTS and len(operation.operands) > 1 else None
    if weights is None or weights.constant is None:
        return True
    return operation.code == "FULLY_CONNECTED" and elements(weights.shape[1:]) > _LONGEST_CACHED_ROW


def _adds_parameters(operation: Operation) -> bool:
    """Whether the compiler adds parameters of its own to move data, which are not counted."""
    if operation.code == "FULLY_CONNECTED":
        weights = operation.operands[1] if len(operation.operands) > 1 else None
        return weights is None or weights.constant is None
    source = operation.input
    odd = operation.code == "RESHAPE" and source is not None and len(source.shape) > 2 and source.shape[-1] % _GROUP
    return bool(odd) or operation.code in _MOVES_DATA


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
