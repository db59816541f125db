"""The edges of a .tflite file: names of its inputs and outputs, its signature, and their types."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.tflite_schema import schema

SIGNATURE = "serving_default"

_TYPES = {
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "float32": schema.TensorType.FLOAT32,
}
_UINT8_OFFSET = 128
# The versions of the ops at the edges, beside 8 bits and beside 16:
# https://github.com/tensorflow/tensorflow/blob/03f49db5a23ec2b22a59f3f3d72e5744469ea30b/tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc
_VERSIONS = {"QUANTIZE": (1, 2), "DEQUANTIZE": (2, 3)}


def signature_of(tflite: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """Returns the tensor indices of inputs and outputs by the names of the first signature."""
    signature = flatbuffer.read_object(tflite).signatureDefs[0]
    inputs, outputs = (
        {entry.name.decode(): int(entry.tensorIndex) for entry in side}
        for side in (signature.inputs, signature.outputs)
    )
    return inputs, outputs


def names_of(tflite: bytes) -> tuple[list[str], list[str]]:
    """Returns the names that the first signature gives inputs and outputs, in the order of the file's."""
    model = flatbuffer.read_object(tflite)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    inputs, outputs = _in_order(graph.inputs, signature.inputs), _in_order(graph.outputs, signature.outputs)
    return [entry.name.decode() for entry in inputs], [entry.name.decode() for entry in outputs]


def dtypes_of(tflite: bytes) -> dict[str, str]:
    """Returns the types of inputs and outputs by the names of the first signature, for example "int8"."""
    tensors = flatbuffer.read_subgraphs(tflite)[0].tensors
    inputs, outputs = signature_of(tflite)
    return {name: tensors[index].dtype.lower() for name, index in (*inputs.items(), *outputs.items())}


def with_names(tflite: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Names the inputs and outputs, and their tensors, and lists them in signature "serving_default".

    A tensor inside that has such a name gets another. One that is both input and output keeps the input's name.

    Args:
      tflite: A TFLite flatbuffer.
      inputs: Names in the order of the file's inputs.
      outputs: Names in the order of the file's outputs.
    """
    model = flatbuffer.read_object(tflite)
    graph = model.subgraphs[0]
    edges: dict[int, str] = {}
    for index, name in (*zip(graph.inputs, inputs, strict=True), *zip(graph.outputs, outputs, strict=True)):
        edges.setdefault(int(index), name)
    taken = set(edges.values())
    for index, tensor in enumerate(graph.tensors):
        name = (tensor.name or b"").decode(errors="replace")
        tensor.name = edges.get(index, f"{name}/inner" if name in taken else name).encode()
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE.encode()
    signature.subgraphIndex = 0
    signature.inputs = [_entry(name, index) for name, index in zip(inputs, graph.inputs, strict=True)]
    signature.outputs = [_entry(name, index) for name, index in zip(outputs, graph.outputs, strict=True)]
    model.signatureDefs = [signature]
    return flatbuffer.write_object(model)


def with_dtypes(tflite: bytes, dtypes: Mapping[str, str]) -> bytes:
    """Gives inputs and outputs other types, by one QUANTIZE or DEQUANTIZE at the edge of each whose type changes.

    Between int8 and uint8 nothing is lost: the same step, and a zero point that is 128 higher. Integers without a
    scale, such as indices, stay as they are.

    Args:
      tflite: A TFLite flatbuffer with signature "serving_default".
      dtypes: "int8", "uint8", "int16" or "float32" by the name of an input or output.
    """
    model = flatbuffer.read_object(tflite)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    graph.inputs, graph.outputs = list(graph.inputs), list(graph.outputs)
    changed = False
    for ends, entries in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        for position, entry in enumerate(_in_order(ends, entries)):
            changed |= _retype(model, ends, position, entry, dtypes.get(entry.name.decode()))
    return flatbuffer.write_object(model) if changed else tflite


def _in_order(ends: Any, entries: Sequence[Any]) -> list[Any]:
    """The entries of a signature in the order of the file's inputs, or outputs, of which several may be one tensor."""
    left = list(entries)
    return [left.pop([int(entry.tensorIndex) for entry in left].index(int(end))) for end in ends]


def _retype(model: Any, ends: Any, position: int, entry: Any, dtype: str | None) -> bool:
    """Puts another tensor in the place of an input or output; returns whether it had to."""
    graph = model.subgraphs[0]
    is_input = ends is graph.inputs
    index = int(entry.tensorIndex)
    inner = graph.tensors[index]
    scaled = inner.quantization is not None and inner.quantization.scale is not None and len(inner.quantization.scale)
    if dtype is None or not scaled or inner.type == _TYPES[dtype]:
        return False
    edge = schema.TensorT()
    edge.name, edge.shape, edge.shapeSignature = entry.name, inner.shape, inner.shapeSignature
    edge.type, edge.buffer, edge.hasRank = _TYPES[dtype], 0, inner.hasRank
    edge.quantization = None if dtype == "float32" else _requantized(inner)
    if inner.name == entry.name:  # it may be that of another input or output, which stays
        inner.name += b"/integers"
    graph.tensors.append(edge)
    new = len(graph.tensors) - 1
    ends[position] = entry.tensorIndex = new
    operands = (new, index) if is_input else (index, new)
    op = "DEQUANTIZE" if dtype == "float32" and not is_input else "QUANTIZE"
    operator = _operator(model, (op, _VERSIONS[op][inner.type == schema.TensorType.INT16]), *operands)
    graph.operators = [operator, *graph.operators] if is_input else [*graph.operators, operator]
    return True


def _requantized(inner: Any) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.asarray(inner.quantization.scale)
    quantization.zeroPoint = np.asarray(inner.quantization.zeroPoint) + _UINT8_OFFSET
    return quantization


def _operator(model: Any, op: tuple[str, int], source: int, destination: int) -> Any:
    """Returns a new op of that name and version."""
    known = [(flatbuffer.builtin_name(entry), entry.version) == op for entry in model.operatorCodes]
    if not any(known):
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, op[0])
        entry.version = op[1]
        model.operatorCodes.append(entry)
        known.append(True)
    operator = schema.OperatorT()
    operator.opcodeIndex = known.index(True)
    operator.inputs, operator.outputs = [source], [destination]
    return operator


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(index)
    return entry
