"""A TFLite flatbuffer as plain dataclasses: what every check and every target reads.

Schema: https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/schema/schema.fbs
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import flatbuffers  # type: ignore[import-untyped]

from components.quantization.conversion import flatbuffer_tables
from components.quantization.conversion.flatbuffer_types import (
    Model,
    Op,
    OpCode,
    Signature,
    Subgraph,
    Tensor,
    packed_int4,
    unpacked_int4,
)
from components.quantization.conversion.tflite_schema import schema

__all__ = [
    "Model",
    "Op",
    "OpCode",
    "Signature",
    "Subgraph",
    "Tensor",
    "builtin_name",
    "name_parts",
    "packed_int4",
    "read_model",
    "read_object",
    "read_subgraphs",
    "unpacked_int4",
    "write_object",
]

HEAD_BYTES = 8
"""How many bytes of a file `is_tflite` needs."""
_FILE_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
# `data:[ubyte] (force_align: 16)` of a buffer in the schema.
_BUFFER_ALIGNMENT = 16
_ROOM_FOR_THE_REST = 2**18


# Slots of the tables of the schema.
_MODEL_VERSION, _MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_DESCRIPTION, _MODEL_BUFFERS = range(5)
_MODEL_METADATA, _MODEL_SIGNATURES = 6, 7
_CODE_DEPRECATED, _CODE_CUSTOM, _CODE_VERSION, _CODE_BUILTIN = 0, 1, 2, 3
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS, _GRAPH_NAME = range(5)
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS, _OPERATOR_OPTIONS_TYPE = range(4)
_OPERATOR_OPTIONS, _OPERATOR_INTERMEDIATES = 4, 8
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_QUANTIZATION, _TENSOR_VARIABLE = range(6)
_TENSOR_SPARSITY, _TENSOR_SIGNATURE, _TENSOR_VARIANTS = 6, 7, 9
_QUANTIZATION_SCALE, _QUANTIZATION_ZERO, _QUANTIZATION_AXIS = 2, 3, 6
_SPARSITY_DIMENSIONS = 2
_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS, _SIGNATURE_KEY, _SIGNATURE_SUBGRAPH = 0, 1, 2, 4
_NAMED_NAME, _NAMED_TENSOR = 0, 1  # of TensorMap; the name is that of Metadata too
# Options of ops with strings: the slot of their kind, their own slot, and the slots of the strings by kind.
_OPTIONS_WITH_TEXTS = (
    (3, 4, {schema.BuiltinOptions.VarHandleOptions: (0, 1)}),
    (11, 12, {schema.BuiltinOptions2.StablehloCustomCallOptions: (0, 2), 21: (0,)}),  # 21: StableHLOCompositeOptions
)
# How many subgraphs the options of an op name, in its first fields.
_CALLED_BY = {
    schema.BuiltinOptions.CallOptions: 1,
    schema.BuiltinOptions.IfOptions: 2,
    schema.BuiltinOptions.WhileOptions: 2,
    schema.BuiltinOptions.CallOnceOptions: 1,
}


def _enum_names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


_BUILTIN_NAMES = _enum_names(schema.BuiltinOperator)
_TYPE_NAMES = _enum_names(schema.TensorType)


def read_subgraphs(tflite: bytes) -> tuple[Subgraph, ...]:
    """Parses a TFLite flatbuffer; subgraph 0 is the main one.

    Constants are views of the file. However broken the file is, time and memory stay in proportion to its size.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer, or lead out of the file.
    """
    return read_model(tflite).subgraphs


def is_tflite(head: bytes) -> bool:
    """Returns whether a file that begins so claims to be a TFLite flatbuffer."""
    return head[4:HEAD_BYTES] == _FILE_IDENTIFIER


def read_model(tflite: bytes) -> Model:
    """Parses a TFLite flatbuffer, as `read_subgraphs`, with its op codes.

    Raises:
      ValueError: As `read_subgraphs`.
    """
    with _parsing(tflite):
        root = flatbuffer_tables.Buffer(tflite).root()
        version = root.number(_MODEL_VERSION, "<I")
        if version != _SCHEMA_VERSION:
            raise flatbuffer_tables.BrokenError(f"got schema version {version}, expected {_SCHEMA_VERSION}")
        codes = tuple(_read_code(code) for code in root.tables(_MODEL_CODES))
        buffers = [_read_buffer(buffer, tflite) for buffer in root.tables(_MODEL_BUFFERS)]
        graphs = tuple(_read_subgraph(graph, codes, buffers) for graph in root.tables(_MODEL_SUBGRAPHS))
        if not graphs:
            raise flatbuffer_tables.BrokenError("got no subgraph, expected one at least")
        _require_subgraphs(graphs)
        signatures = tuple(_read_signature(signature) for signature in root.tables(_MODEL_SIGNATURES))
        return Model(subgraphs=graphs, codes=codes, signatures=signatures)


def read_object(tflite: bytes) -> Any:
    """Returns a TFLite flatbuffer as the schema's own mutable object, a `ModelT`.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer, lead out of the file, or keep constants behind the
        flatbuffer, as models of more than 2 GB do: the object would lose them.
    """
    read_model(tflite)
    with _parsing(tflite):
        _require_readable(flatbuffer_tables.Buffer(tflite).root())
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))


@contextlib.contextmanager
def _parsing(tflite: bytes) -> Iterator[None]:
    """Turns whatever a reader stumbles over into one error: struct, index, type or text errors."""
    if not is_tflite(tflite):
        raise ValueError(
            f"not a TFLite flatbuffer: got identifier {bytes(tflite[4:8])!r}, expected {_FILE_IDENTIFIER!r}"
        )
    try:
        yield
    except Exception as error:
        raise ValueError(f"TFLite flatbuffer of {len(tflite)} bytes cannot be parsed: {error}") from error


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that aligns bytes as the schema asks for buffers; the generated Python code does not."""

    def StartVector(self, elem_size: int, count: int, alignment: int) -> int:
        """Starts a vector; one of bytes as if it were that of a buffer."""
        return int(super().StartVector(elem_size, count, _BUFFER_ALIGNMENT if elem_size == 1 else alignment))


def write_object(model: Any) -> bytes:
    """Returns the flatbuffer of a `ModelT`, its buffers aligned as TFLite's delegates and TFLite Micro want them.

    Content that no tensor and no metadata has any more is left out: the converter, too, leaves some behind, which is
    not even the same each time.
    """
    used = {tensor.buffer for graph in model.subgraphs or () for tensor in graph.tensors or ()}
    used |= {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers or ()):
        if index not in used:
            buffer.data = None
    # A builder that is too small doubles, and holds both sizes while it does.
    constants = sum(len(buffer.data) for buffer in model.buffers or () if buffer.data is not None)
    builder = _AlignedBuilder(constants + _ROOM_FOR_THE_REST)
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def builtin_name(code: Any) -> str:
    """Returns the name of the op of an `OperatorCodeT`."""
    return _builtin_name(code.builtinCode, code.deprecatedBuiltinCode)


def _builtin_name(code: int, deprecated: int) -> str:
    # Codes below 127 stand in the deprecated byte field, written by converters before schema 3a.
    builtin = max(code, deprecated)
    return _BUILTIN_NAMES.get(builtin, f"BUILTIN_{builtin}")


def name_parts(name: str) -> frozenset[str]:
    """Returns what a tensor's name is made of: scopes and ops of all that was fused into it.

    >>> sorted(name_parts("model/relu/Relu;model/conv/Conv2D"))
    ['Conv2D', 'Relu', 'conv', 'model', 'relu']
    """
    return frozenset(re.split("[/;:]", name))


def _require_readable(root: flatbuffer_tables.Table) -> None:
    """Walks over all that the schema's objects loop over: they believe any length, and follow any offset."""
    for graph in root.tables(_MODEL_SUBGRAPHS):
        graph.text(_GRAPH_NAME)
        for tensor in graph.tables(_GRAPH_TENSORS):
            tensor.text(_TENSOR_NAME)
            sparsity = tensor.table(_TENSOR_SPARSITY)
            for _ in (*tensor.tables(_TENSOR_VARIANTS), *(sparsity.tables(_SPARSITY_DIMENSIONS) if sparsity else ())):
                pass
        for operator in graph.tables(_GRAPH_OPERATORS):
            _require_texts(operator)
    for signature in root.tables(_MODEL_SIGNATURES):
        signature.text(_SIGNATURE_KEY)
        for named in (*signature.tables(_SIGNATURE_INPUTS), *signature.tables(_SIGNATURE_OUTPUTS)):
            named.text(_NAMED_NAME)
    for entry in root.tables(_MODEL_METADATA):
        entry.text(_NAMED_NAME)
    for code in root.tables(_MODEL_CODES):
        code.text(_CODE_CUSTOM)
    root.text(_MODEL_DESCRIPTION)
    for buffer in root.tables(_MODEL_BUFFERS):
        if buffer.number(_BUFFER_OFFSET, "<Q") > 1:
            raise flatbuffer_tables.BrokenError("got constants behind the flatbuffer, which would be lost")


def _require_texts(operator: flatbuffer_tables.Table) -> None:
    for kind_slot, slot, kinds in _OPTIONS_WITH_TEXTS:
        options = operator.table(slot)
        if options is not None:
            for text in kinds.get(operator.number(kind_slot, "<B"), ()):
                options.text(text)


def _read_code(code: flatbuffer_tables.Table) -> OpCode:
    return OpCode(
        code=_builtin_name(code.number(_CODE_BUILTIN, "<i"), code.number(_CODE_DEPRECATED, "<b")),
        custom_code=code.text(_CODE_CUSTOM),
        version=code.number(_CODE_VERSION, "<i", 1),
    )


def _read_signature(signature: flatbuffer_tables.Table) -> Signature:
    inputs, outputs = (
        tuple(named.number(_NAMED_TENSOR, "<I") for named in signature.tables(slot))
        for slot in (_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS)
    )
    return Signature(
        key=signature.text(_SIGNATURE_KEY),
        subgraph=signature.number(_SIGNATURE_SUBGRAPH, "<I"),
        inputs=inputs,
        outputs=outputs,
    )


def _read_buffer(buffer: flatbuffer_tables.Table, tflite: bytes) -> memoryview | None:
    offset, size = buffer.number(_BUFFER_OFFSET, "<Q"), buffer.number(_BUFFER_SIZE, "<Q")
    if offset > 1:
        if offset + size > len(tflite):
            raise flatbuffer_tables.BrokenError(f"got a constant of {size} bytes at {offset}, behind the end")
        return memoryview(tflite)[offset : offset + size]
    return buffer.raw(_BUFFER_DATA)


def _read_subgraph(
    graph: flatbuffer_tables.Table, codes: tuple[OpCode, ...], buffers: list[memoryview | None]
) -> Subgraph:
    tensors = tuple(_read_tensor(i, tensor, buffers) for i, tensor in enumerate(graph.tables(_GRAPH_TENSORS)))
    ops = tuple(_read_op(i, op, codes, len(tensors)) for i, op in enumerate(graph.tables(_GRAPH_OPERATORS)))
    inputs, outputs = (_indices(graph, slot, len(tensors)) for slot in (_GRAPH_INPUTS, _GRAPH_OUTPUTS))
    if min((*inputs, *outputs), default=0) < 0:
        raise flatbuffer_tables.BrokenError("got an input or output that is no tensor")
    return Subgraph(tensors=tensors, ops=ops, inputs=inputs, outputs=outputs)


def _read_op(index: int, operator: flatbuffer_tables.Table, codes: tuple[OpCode, ...], tensors: int) -> Op:
    which = operator.number(_OPERATOR_CODE, "<I")
    if which >= len(codes):
        raise flatbuffer_tables.BrokenError(f"op {index}: got op code {which}, expected one of {len(codes)}")
    operands = _indices(operator, _OPERATOR_INPUTS, tensors)
    outputs = _indices(operator, _OPERATOR_OUTPUTS, tensors)
    return Op(
        index=index,
        code=codes[which].code,
        custom_code=codes[which].custom_code,
        version=codes[which].version,
        inputs=tuple(i for i in operands if i >= 0),
        outputs=tuple(i for i in outputs if i >= 0),
        operands=operands,
        intermediates=tuple(i for i in _indices(operator, _OPERATOR_INTERMEDIATES, tensors) if i >= 0),
        subgraphs=_called(operator),
    )


def _called(operator: flatbuffer_tables.Table) -> tuple[int, ...]:
    """The subgraphs that an op of control flow runs."""
    kind, options = operator.number(_OPERATOR_OPTIONS_TYPE, "<B"), operator.table(_OPERATOR_OPTIONS)
    slots = range(_CALLED_BY.get(kind, 0))
    return tuple(options.number(slot, "<i") for slot in slots) if options else ()


def _require_subgraphs(graphs: tuple[Subgraph, ...]) -> None:
    """Checks that ops run subgraphs that there are, and none runs itself: TFLite would never come back."""
    calls = [{called for op in graph.ops for called in op.subgraphs} for graph in graphs]
    wrong = sorted({i for called in calls for i in called if not 0 <= i < len(graphs)})
    if wrong:
        raise flatbuffer_tables.BrokenError(f"got an op that runs subgraph {wrong[0]}, expected one of {len(graphs)}")
    waiting = [len(called) for called in calls]
    callers: list[list[int]] = [[] for _ in graphs]
    for caller, called in enumerate(calls):
        for i in called:
            callers[i].append(caller)
    done = [i for i, count in enumerate(waiting) if not count]
    for i in done:
        for caller in callers[i]:
            waiting[caller] -= 1
            if not waiting[caller]:
                done.append(caller)
    if len(done) < len(graphs):
        raise flatbuffer_tables.BrokenError("got subgraphs that run each other in a circle")


def _indices(table: flatbuffer_tables.Table, slot: int, tensors: int) -> tuple[int, ...]:
    indices = table.numbers(slot, "<i4")
    if len(indices) and not -1 <= int(indices.min()) <= int(indices.max()) < tensors:
        raise flatbuffer_tables.BrokenError(f"got tensor {indices.max()} or {indices.min()}, expected one of {tensors}")
    return tuple(indices.tolist())


def _read_tensor(index: int, tensor: flatbuffer_tables.Table, buffers: list[memoryview | None]) -> Tensor:
    which = tensor.number(_TENSOR_BUFFER, "<I")
    if which and which >= len(buffers):
        raise flatbuffer_tables.BrokenError(f"tensor {index}: got buffer {which}, expected one of {len(buffers)}")
    data = buffers[which] if which else None
    quantization = tensor.table(_TENSOR_QUANTIZATION)
    kind, shape = tensor.number(_TENSOR_TYPE, "<b"), tuple(tensor.numbers(_TENSOR_SHAPE, "<i4").tolist())
    unknown = {i for i, size in enumerate(shape) if size < 0}
    unknown |= {i for i, size in enumerate(tensor.numbers(_TENSOR_SIGNATURE, "<i4").tolist()) if size < 0}
    return Tensor(
        index=index,
        name=tensor.text(_TENSOR_NAME),
        shape=shape,
        dynamic=bool(unknown),
        dtype=_TYPE_NAMES.get(kind, f"TYPE_{kind}"),
        scale=tuple(quantization.numbers(_QUANTIZATION_SCALE, "<f4").tolist()) if quantization else (),
        zero_point=tuple(quantization.numbers(_QUANTIZATION_ZERO, "<i8").tolist()) if quantization else (),
        constant=data or None,
        quantized_dimension=quantization.number(_QUANTIZATION_AXIS, "<i") if quantization else 0,
        is_variable=bool(tensor.number(_TENSOR_VARIABLE, "<b")),
        is_sparse=tensor.table(_TENSOR_SPARSITY) is not None,
        unknown_dimensions=tuple(sorted(unknown)),
    )
