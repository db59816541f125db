"""A TFLite flatbuffer as plain dataclasses: what every check and every target reads.

Schema: https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/schema/schema.fbs
"""

import dataclasses
import math
import re
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from tensorflow.lite.python import schema_py_generated as schema

_FILE_IDENTIFIER = b"TFL3"
# NumPy types of the constants that are read; others stay bytes.
_NUMPY_DTYPES = {"INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FLOAT32": "<f4"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One tensor of a subgraph.

    Attributes:
      index: Its index in the subgraph.
      name: Its name.
      shape: Its shape, as stored.
      dynamic: Whether a dimension is unknown until run time.
      dtype: The name of its type in the schema, for example "INT8".
      scale: Scales: one, or one per channel; empty if it is not quantized.
      zero_point: Zero points, as many as scales.
      constant: Its value as little-endian bytes; None if it is computed or fed.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dynamic: bool
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    constant: bytes | None

    @property
    def values(self) -> np.ndarray[Any, Any] | None:
        """The constant as an array of this shape, INT4 as int8; None if it is not a constant of a known type."""
        if self.constant is not None and self.dtype == "INT4":
            return unpacked_int4(self.constant, math.prod(self.shape)).reshape(self.shape)
        if self.constant is None or self.dtype not in _NUMPY_DTYPES:
            return None
        return np.frombuffer(self.constant, _NUMPY_DTYPES[self.dtype]).reshape(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One operation of a subgraph.

    Attributes:
      index: Its index in the subgraph, in execution order.
      code: The name of its builtin code, for example "CONV_2D", or "CUSTOM".
      custom_code: The name of a custom op; empty for a builtin.
      version: The version of the builtin.
      inputs: Indices of its input tensors; an optional one that is not given is left out.
      outputs: Indices of its output tensors.
    """

    index: int
    code: str
    custom_code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """The code, with the custom code of a custom op."""
        return f"CUSTOM {self.custom_code}" if self.custom_code else self.code


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Subgraph:
    """One subgraph: tensors, ops in execution order, and the indices of its inputs and outputs."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _enum_names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


_BUILTIN_NAMES = _enum_names(schema.BuiltinOperator)
_TYPE_NAMES = _enum_names(schema.TensorType)


def read_subgraphs(tflite: bytes) -> tuple[Subgraph, ...]:
    """Parses a TFLite flatbuffer; subgraph 0 is the main one.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    _require_identifier(tflite)
    try:
        model = read_object(tflite)
        codes = [_read_code(code) for code in model.operatorCodes or []]
        return tuple(_read_subgraph(graph, codes, model.buffers) for graph in model.subgraphs)
    except Exception as error:  # flatbuffers raises what its reader stumbles over: struct, index or type errors
        raise ValueError(f"TFLite flatbuffer of {len(tflite)} bytes cannot be parsed: {error}") from error


def read_object(tflite: bytes) -> Any:
    """Returns a TFLite flatbuffer as the schema's own mutable object, a `ModelT`.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    _require_identifier(tflite)
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))


def _require_identifier(tflite: bytes) -> None:
    if tflite[4:8] != _FILE_IDENTIFIER:
        raise ValueError(f"not a TFLite flatbuffer: got identifier {tflite[4:8]!r}, expected {_FILE_IDENTIFIER!r}")


def write_object(model: Any) -> bytes:
    """Returns the flatbuffer of a `ModelT`."""
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())


def builtin_name(code: Any) -> str:
    """Returns the name of the op of an `OperatorCodeT`."""
    # Codes below 127 stand in the deprecated byte field, written by converters before schema 3a.
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _BUILTIN_NAMES.get(builtin, f"BUILTIN_{builtin}")


def name_parts(name: str) -> frozenset[str]:
    """Returns what a tensor's name is made of: scopes and ops of all that was fused into it.

    >>> sorted(name_parts("model/relu/Relu;model/conv/Conv2D"))
    ['Conv2D', 'Relu', 'conv', 'model', 'relu']
    """
    return frozenset(re.split("[/;:]", name))


def packed_int4(values: npt.NDArray[np.int8]) -> bytes:
    """Returns integers from -8 to 7 as nibbles, the first in the low one; the last is padded with 0.

    >>> packed_int4(np.array([1, -1, 7], np.int8)).hex()
    'f107'
    """
    nibbles = np.pad(values.ravel(), (0, values.size % 2)).view(np.uint8) & 0xF
    return bytes(nibbles[0::2] | nibbles[1::2] << 4)


def unpacked_int4(content: bytes, count: int) -> npt.NDArray[np.int8]:
    """Returns the integers that `packed_int4` packed.

    >>> unpacked_int4(bytes.fromhex("f107"), 3).tolist()
    [1, -1, 7]
    """
    pairs = np.frombuffer(content, np.uint8)
    nibbles = np.stack([pairs & 0xF, pairs >> 4], axis=-1).ravel()[:count].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)


def _read_code(code: Any) -> tuple[str, str, int]:
    return builtin_name(code), (code.customCode or b"").decode(), code.version


def _read_subgraph(graph: Any, codes: list[tuple[str, str, int]], buffers: list[Any]) -> Subgraph:
    tensors = tuple(_read_tensor(index, tensor, buffers) for index, tensor in enumerate(graph.tensors or []))
    ops = []
    for index, operator in enumerate(graph.operators or []):
        code, custom, version = codes[operator.opcodeIndex]
        ops.append(
            Op(
                index=index,
                code=code,
                custom_code=custom,
                version=version,
                inputs=tuple(int(i) for i in _listed(operator.inputs) if i >= 0),
                outputs=tuple(int(i) for i in _listed(operator.outputs)),
            )
        )
    inputs, outputs = (tuple(int(i) for i in _listed(side)) for side in (graph.inputs, graph.outputs))
    return Subgraph(tensors=tensors, ops=tuple(ops), inputs=inputs, outputs=outputs)


def _read_tensor(index: int, tensor: Any, buffers: list[Any]) -> Tensor:
    quantization = tensor.quantization
    data = buffers[tensor.buffer].data if tensor.buffer else None
    return Tensor(
        index=index,
        name=(tensor.name or b"").decode(errors="replace"),
        shape=tuple(int(size) for size in _listed(tensor.shape)),
        dynamic=any(size < 0 for size in _listed(tensor.shapeSignature)),
        dtype=_TYPE_NAMES.get(tensor.type, f"TYPE_{tensor.type}"),
        scale=tuple(float(s) for s in _listed(quantization.scale)) if quantization else (),
        zero_point=tuple(int(z) for z in _listed(quantization.zeroPoint)) if quantization else (),
        constant=None if data is None or len(data) == 0 else bytes(bytearray(data)),
    )


def _listed(values: Any) -> Any:
    return [] if values is None else values
