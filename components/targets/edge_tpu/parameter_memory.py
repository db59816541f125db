"""How many bytes of parameters a compiled model keeps on the chip, and how many it streams at each inference.

Sizes are those of `parameter_layout` and `data_movement`, which give most compiled models in public to the byte. What
is not understood is marked by a low confidence, and the size is then the least that there is: what
UNIDIRECTIONAL_SEQUENCE_LSTM, TRANSPOSE_CONV and products of computed matrices add, and moves of data that are in no
public model. Nor can a file say whether it was compiled together with others, which share the chip's memory.
"""

import dataclasses
from collections.abc import Sequence

from components.quantization.conversion import flatbuffer
from components.targets import Mapping
from components.targets._operation import Operation, elements, read_operations
from components.targets.edge_tpu import data_movement as moves
from components.targets.edge_tpu import parameter_layout as layout
from components.targets.edge_tpu.generations import Generation
from components.targets.edge_tpu.neighbours import Neighbours

# What is left of the 8 MiB for parameters beside a small program: logs of compilers 14.1 to 16.0 have 7.7 MiB at most,
# less for large activations or many ops, down to 6 MiB for YOLOv5s.
_CACHE_BYTES = round(7.7 * 2**20)
# Dense weights of more inputs are streamed: in what is public those of 9,504 are, those of 5,904 are cached.
_LONGEST_CACHED_ROW = 8_192
_NOT_UNDERSTOOD = frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM", "TRANSPOSE_CONV"})
# Ops of which constants are known to be data; and dimensions and bytes beyond which a file is broken.
_WITH_DATA = layout.ELEMENT_WISE | {"CONCATENATION", "FULLY_CONNECTED", "PACK"}
_MOST_DIMENSIONS, _MOST_BYTES = 8, 2**31
# Known from many families, from one, and not understood.
_SURE, _LIKELY, _UNSURE = 0.9, 0.65, 0.4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParameterMemory:
    """Where the parameters of a compiled model lie.

    Attributes:
      cached_bytes: On the chip, loaded once: "On-chip memory used for caching model parameters".
      streamed_bytes: Off the chip, sent at each inference: "Off-chip memory used for streaming uncached parameters".
      confidence: How sure that is, 0..1.
      not_understood: The first op whose parameters are not understood, and are counted as far as they are: both sizes
        together are the least that there is then; "" if there is none.
    """

    cached_bytes: int
    streamed_bytes: int
    confidence: float
    not_understood: str = ""

    @property
    def total_bytes(self) -> int:
        """Both."""
        return self.cached_bytes + self.streamed_bytes

    @property
    def basis(self) -> str:
        """What the sizes rest on, in words."""
        if not self.not_understood:
            return "estimated"
        return f"estimated, both together the least: what the compiler stores for {self.not_understood} is not known"


def parameter_memory(tflite: bytes, mapping: Mapping, generation: Generation) -> ParameterMemory:
    """Estimates the parameter memory of a model as the compiler would compile it.

    Args:
      tflite: A TFLite flatbuffer.
      mapping: Which of its ops run on the Edge TPU.
      generation: That of the compiler.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    operations = read_operations(tflite, flatbuffer.read_subgraphs(tflite)[0], Operation)
    mapped = [operation for operation, op in zip(operations, mapping.ops, strict=True) if op.on_target]
    return place(mapped, generation)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Parameters:
    """What the parameters of one op take, where they lie if there is room, and how sure that is."""

    size: int = 0
    streamed: bool = False
    confidence: float = _SURE


_UNKNOWN = _Parameters(confidence=_UNSURE)


def place(operations: Sequence[Operation], generation: Generation) -> ParameterMemory:
    """Places the parameters of mapped ops: weights are cached in their order while there is room.

    Args:
      operations: The mapped ops, in their order.
      generation: The compiler.
    """
    cached = streamed = 0
    confidence = _SURE
    not_understood = ""
    around = Neighbours(operations)
    for operation in operations:
        found = _parameters(operation, generation, around) if _has_sizes(operation) else _UNKNOWN
        found = found if found.size < _MOST_BYTES else _UNKNOWN
        if found.streamed or cached + found.size > _CACHE_BYTES:
            streamed += found.size
        else:
            cached += found.size
        confidence = min(confidence, found.confidence)
        if found.confidence == _UNSURE and not not_understood:
            not_understood = f"op {operation.op.index}, {operation.op.name},"
    if streamed:
        confidence = min(confidence, _LIKELY)
    return ParameterMemory(
        cached_bytes=cached, streamed_bytes=streamed, confidence=confidence, not_understood=not_understood
    )


def _has_sizes(operation: Operation) -> bool:
    """Whether tensors have such shapes as a model has that runs."""
    tensors = (*operation.operands, *operation.outputs)
    return all(t is None or (len(t.shape) <= _MOST_DIMENSIONS and min(t.shape, default=1) > 0) for t in tensors)


def _parameters(operation: Operation, generation: Generation, around: Neighbours) -> _Parameters:
    weights = operation.operands[1] if operation.code in layout.WITH_WEIGHTS and len(operation.operands) > 1 else None
    ranks = (2, 4) if operation.code != "DEPTHWISE_CONV_2D" else (4,)
    if weights is not None and weights.constant is not None and len(weights.shape) in ranks:
        long = operation.code == "FULLY_CONNECTED" and elements(weights.shape[1:]) > _LONGEST_CACHED_ROW
        spread = around.spread(operation)
        confidence = _UNSURE if operation.code in _NOT_UNDERSTOOD else _LIKELY if spread else _SURE
        size = layout.weights_bytes(operation, generation, spread)
        return _Parameters(size=size, streamed=long, confidence=confidence)
    if operation.code in _BY_CODE:
        return _BY_CODE[operation.code](operation, around)
    if operation.code == "SOFTMAX":
        return _Parameters(size=layout.softmax_bytes(operation, generation))
    return _UNKNOWN if operation.code in _NOT_UNDERSTOOD else _data(operation)


def _data(operation: Operation, confidence: float = _SURE) -> _Parameters:
    """Constants that are data: of an element-wise op on a single position cached (2 families), else streamed."""
    size, output = layout.data_bytes(operation), operation.output
    if (size and operation.code not in _WITH_DATA) or layout.has_single_number(operation):
        confidence = _UNSURE
    single = output is not None and output.shape and elements(output.shape) == output.shape[-1]
    if size and single and operation.code in layout.ELEMENT_WISE:
        return _Parameters(size=size, confidence=min(confidence, _LIKELY))
    return _Parameters(size=size, streamed=True, confidence=confidence)


def _product(operation: Operation, around: Neighbours) -> _Parameters:
    """A FULLY_CONNECTED with computed weights: its constant first operand is data, or weights of what was computed.

    Each of its rows is a position of the result then, which the batch becomes the depth of (3 families).
    """
    matrix, weights = (*operation.operands, None, None)[:2]
    if matrix is None or weights is None or matrix.constant is None or len(matrix.shape) != 2:
        return _data(operation, _UNSURE)
    if weights.index not in around.computed:
        return _data(operation, _LIKELY)
    before = around.position_among_equals(operation)
    if before:  # the only matrix is stored once, and sent as data besides (1 family)
        return _Parameters(size=layout.data_bytes(operation) if before == 1 else 0, streamed=True, confidence=_LIKELY)
    rows, columns = matrix.shape
    returned = around.returned(operation)
    if returned is not None and returned.shape[-1:] == (rows,):
        size: int | None = moves.narrow_bytes(rows, moves.up(columns, moves.GROUP))
    else:
        batch = moves.batch_bytes(weights.shape[0] if returned is None and weights.shape else 1)
        size = None if batch is None else moves.positions_bytes(rows, columns) + batch
    return _moved(size)


def _transpose(operation: Operation, around: Neighbours) -> _Parameters:
    """A TRANSPOSE; that of a product which is in that order anyway is free."""
    source = operation.input
    if source is None or around.returns(operation):
        return _Parameters()
    return _moved(moves.transposing_bytes(source.shape, operation.integers(1), around.is_spread(source)))


def _reshape(operation: Operation, around: Neighbours) -> _Parameters:
    """A RESHAPE that changes the depth: that of what comes from outside is free, as it lies in order there."""
    source, target = operation.input, operation.output
    if source is None or target is None or not source.shape or not target.shape or min(source.shape) < 1:
        return _Parameters()
    depth, new_depth = source.shape[-1], target.shape[-1]
    if depth == new_depth or (moves.fills_groups(depth) and moves.fills_groups(new_depth)):
        return _Parameters()
    is_flat = any(elements(source.shape[axis:]) == new_depth for axis in range(len(source.shape)))
    if around.is_spread(source):
        return _Parameters(confidence=_LIKELY)
    if not is_flat and new_depth != 1:
        return _UNKNOWN
    if source.index not in around.computed:
        return _Parameters()
    if new_depth == 1:
        return _moved(moves.spreading_bytes(depth))
    return _moved(moves.flattening_bytes(new_depth // depth, depth))


def _concatenation(operation: Operation, around: Neighbours) -> _Parameters:
    """Vectors that fill no groups are joined by a matrix; not for a FULLY_CONNECTED, which takes them as they lie."""
    vectors = [t for t in operation.operands if t is not None and t.shape]
    odd = any(not moves.fills_groups(t.shape[-1]) for t in vectors)
    if odd and all(elements(t.shape) == t.shape[-1] for t in vectors) and not around.is_read_densely(operation):
        return _moved(moves.joining_bytes(t.shape[-1] for t in vectors))
    return _data(operation)


def _slice(operation: Operation, around: Neighbours) -> _Parameters:
    """A slice of the depth moves data unless it begins with a group."""
    source, output = operation.input, operation.output
    if source is None or output is None or not source.shape or len(source.shape) != len(output.shape):
        return _UNKNOWN
    depth, begins = output.shape[-1], operation.integers(1)
    if source.shape[-1] == depth or (operation.code == "SPLIT" and moves.fills_groups(depth)):
        return _Parameters()
    if operation.code == "SPLIT" or len(begins) != len(source.shape):
        return _UNKNOWN
    from_start = operation.options.get("begin_mask", 0) >> (len(begins) - 1) & 1
    begin = 0 if from_start else begins[-1] % source.shape[-1]
    return _Parameters() if moves.fills_groups(begin) else _moved(moves.slicing_bytes(begin, depth))


def _pad(operation: Operation, around: Neighbours) -> _Parameters:
    source, output = operation.input, operation.output
    if source is None or output is None or not source.shape or source.shape[-1:] == output.shape[-1:]:
        return _data(operation)
    if len(source.shape) != len(output.shape):
        return _UNKNOWN
    return _moved(moves.padding_bytes(source.shape[-1], output.shape[-1]))


def _mean(operation: Operation, around: Neighbours) -> _Parameters:
    source = operation.input
    rank = len(source.shape) if source is not None else 0
    if source is None or not rank or rank - 1 not in {axis % rank for axis in operation.integers(1)}:
        return _Parameters()
    return _moved(moves.averaging_bytes(source.shape[-1]))


def _moved(size: int | None) -> _Parameters:
    """Matrices that move data, 0 if none do; None, or more than there is memory, for what is not known of them."""
    if size is None or size > _CACHE_BYTES:
        return _UNKNOWN
    return _Parameters(size=size, confidence=_LIKELY) if size else _Parameters()


_BY_CODE = {
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _product,
    "MEAN": _mean,
    "PAD": _pad,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SPLIT": _slice,
    "STRIDED_SLICE": _slice,
    "TRANSPOSE": _transpose,
}
