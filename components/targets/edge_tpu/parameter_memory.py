"""How many bytes of parameters a compiled model keeps on the chip, and how many it streams at each inference.

Sizes are those of `parameter_layout`, which gives most compiled models in public to the byte. What is not understood is
marked by a low confidence, and the size is then the least that there is: how the compiler moves data from depth to
positions and back (TRANSPOSE, most of RESHAPE where a depth is no multiple of 4, STRIDED_SLICE of such), and what
UNIDIRECTIONAL_SEQUENCE_LSTM and TRANSPOSE_CONV add. Nor can a file say whether it was compiled together with others,
which share the chip's memory.
"""

import dataclasses
from collections.abc import Sequence

from components.quantization.conversion import flatbuffer
from components.targets import Mapping
from components.targets._operation import Operation, elements, read_operations
from components.targets.edge_tpu import parameter_layout as layout
from components.targets.edge_tpu.generations import Generation

# What is left of the 8 MiB for parameters beside a small program: logs of compilers 14.1 to 16.0 have 7.7 MiB at most,
# less for large activations or many ops, down to 6 MiB for YOLOv5s.
_CACHE_BYTES = round(7.7 * 2**20)
# Dense weights of more inputs are streamed: in what is public those of 9,504 are, those of 5,904 are cached.
_LONGEST_CACHED_ROW = 8_192
_DENSE = "FULLY_CONNECTED"
_NOT_UNDERSTOOD = frozenset({"TRANSPOSE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "TRANSPOSE_CONV"})
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

    size: int
    streamed: bool = False
    confidence: float = _SURE


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The Edge TPU's part of a model, as far as it was walked over.

    Attributes:
      dense: Tensors that a FULLY_CONNECTED reads.
      computed: Tensors that the chip computed: others come from outside, and lie in the order of their numbers.
    """

    dense: frozenset[int]
    computed: set[int] = dataclasses.field(default_factory=set)

    def add(self, operation: Operation) -> None:
        """Adds what an op computes; a QUANTIZE of what comes from outside leaves it in its order."""
        if operation.code != "QUANTIZE" or not self.computed.isdisjoint(operation.op.inputs):
            self.computed.update(operation.op.outputs)


def place(operations: Sequence[Operation], generation: Generation) -> ParameterMemory:
    """Places the parameters of mapped ops: weights are cached in their order while there is room.

    Args:
      operations: The mapped ops, in their order.
      generation: The compiler.
    """
    cached = streamed = 0
    confidence = _SURE
    not_understood = ""
    part = _Part(
        dense=frozenset(i for operation in operations if operation.code == _DENSE for i in operation.op.inputs)
    )
    for operation in operations:
        found = _parameters(operation, generation, part)
        if found.streamed or cached + found.size > _CACHE_BYTES:
            streamed += found.size
        else:
            cached += found.size
        confidence = min(confidence, found.confidence)
        if found.confidence == _UNSURE and not not_understood:
            not_understood = f"op {operation.op.index}, {operation.op.name},"
        part.add(operation)
    if streamed:
        confidence = min(confidence, _LIKELY)
    return ParameterMemory(
        cached_bytes=cached, streamed_bytes=streamed, confidence=confidence, not_understood=not_understood
    )


def _parameters(operation: Operation, generation: Generation, part: _Part) -> _Parameters:
    weights = operation.operands[1] if operation.code in layout.WITH_WEIGHTS and len(operation.operands) > 1 else None
    if weights is not None and weights.constant is not None and len(weights.shape) in (2, 4):
        long = operation.code == _DENSE and elements(weights.shape[1:]) > _LONGEST_CACHED_ROW
        confidence = _UNSURE if operation.code in _NOT_UNDERSTOOD else _SURE
        return _Parameters(size=layout.weights_bytes(operation, generation), streamed=long, confidence=confidence)
    if operation.code == _DENSE:
        return _product(operation, part)
    if operation.code == "SOFTMAX":
        return _Parameters(size=layout.softmax_bytes(operation, generation))
    if operation.code == "RESHAPE":
        return _reshape(operation, part)
    if operation.code == "CONCATENATION" and _joins_vectors(operation, part):
        return _Parameters(size=layout.joining_bytes(t.shape[-1] for t in operation.operands if t), confidence=_LIKELY)
    unsure = operation.code in _NOT_UNDERSTOOD or _slices_groups(operation) or layout.has_single_number(operation)
    size = layout.data_bytes(operation)
    return _Parameters(size=size, streamed=True, confidence=_UNSURE if unsure else _SURE)


def _product(operation: Operation, part: _Part) -> _Parameters:
    """A FULLY_CONNECTED with computed weights: its constant first operand is data, or weights of what was computed."""
    matrix, weights = (*operation.operands, None, None)[:2]
    if matrix is None or weights is None or matrix.constant is None or len(matrix.shape) != 2:
        return _Parameters(size=layout.data_bytes(operation), streamed=True, confidence=_UNSURE)
    if weights.index in part.computed:
        return _Parameters(size=layout.product_bytes(*matrix.shape), confidence=_LIKELY)
    return _Parameters(size=layout.data_bytes(operation), streamed=True, confidence=_LIKELY)


def _reshape(operation: Operation, part: _Part) -> _Parameters:
    """A RESHAPE to a vector: that of what comes from outside is free, as it lies in the order of its numbers there."""
    source, target = operation.input, operation.output
    if source is None or target is None or not source.shape or not target.shape or min(source.shape) < 1:
        return _Parameters(size=0)
    count, depth, new_depth = elements(source.shape), source.shape[-1], target.shape[-1]
    if depth == new_depth or (layout.fills_groups(depth) and layout.fills_groups(new_depth)):
        return _Parameters(size=0)
    if new_depth != count:
        return _Parameters(size=0, confidence=_UNSURE)
    if count == depth or source.index not in part.computed:
        return _Parameters(size=0)
    size = layout.flattening_bytes(count // depth, depth)
    return _Parameters(size=0, confidence=_UNSURE) if size is None else _Parameters(size=size, confidence=_LIKELY)


def _joins_vectors(operation: Operation, part: _Part) -> bool:
    """Whether vectors are joined that fill no groups, and not for a FULLY_CONNECTED, which takes them as they lie."""
    vectors = [t for t in operation.operands if t is not None and t.shape]
    odd = any(not layout.fills_groups(t.shape[-1]) for t in vectors)
    return odd and all(elements(t.shape) == t.shape[-1] for t in vectors) and not part.dense & set(operation.op.outputs)


def _slices_groups(operation: Operation) -> bool:
    """Whether a slice has a depth that fills no groups."""
    sliced = operation.code in {"SLICE", "STRIDED_SLICE", "SPLIT"} and operation.input is not None
    tensors = (operation.input, *operation.outputs) if sliced else ()
    return any(t is not None and t.shape and not layout.fills_groups(t.shape[-1]) for t in tensors)
