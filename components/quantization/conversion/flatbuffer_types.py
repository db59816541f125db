"""What `flatbuffer` reads of a model, as plain dataclasses, and the packing of 4-bit constants."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

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
      unknown_dimensions: Which those are.
      dtype: The name of its type in the schema, for example "INT8".
      scale: Scales: one, or one per channel; empty if it is not quantized.
      zero_point: Zero points, as many as scales.
      constant: Its value as little-endian bytes, a view of the file; None if it is computed or fed.
      quantized_dimension: The dimension that several scales are of.
      is_variable: Whether it is a state that ops keep from run to run.
      is_sparse: Whether only values other than 0 are stored.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dynamic: bool
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    constant: bytes | memoryview | None
    quantized_dimension: int = 0
    is_variable: bool = False
    is_sparse: bool = False
    unknown_dimensions: tuple[int, ...] = ()

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
      operands: Its inputs by position, -1 for an optional one that is not given.
      intermediates: Indices of tensors that hold only the scales of values inside the op.
      subgraphs: Indices of the subgraphs that it runs.
    """

    index: int
    code: str
    custom_code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operands: tuple[int, ...] = ()
    intermediates: tuple[int, ...] = ()
    subgraphs: tuple[int, ...] = ()

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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpCode:
    """An entry of the table of ops that a model names: see `Op`."""

    code: str
    custom_code: str
    version: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """A function of the model: its key, its subgraph, and the indices of the tensors that it names."""

    key: str
    subgraph: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Its subgraphs, the ops that it names, used or not, and its signatures."""

    subgraphs: tuple[Subgraph, ...]
    codes: tuple[OpCode, ...]
    signatures: tuple[Signature, ...]


def packed_int4(values: npt.NDArray[np.int8]) -> bytes:
    """Returns integers from -8 to 7 as nibbles, the first in the low one; the last is padded with 0.

    >>> packed_int4(np.array([1, -1, 7], np.int8)).hex()
    'f107'
    """
    nibbles = np.pad(values.ravel(), (0, values.size % 2)).view(np.uint8) & 0xF
    return bytes(nibbles[0::2] | nibbles[1::2] << 4)


def unpacked_int4(content: bytes | memoryview, count: int) -> npt.NDArray[np.int8]:
    """Returns the integers that `packed_int4` packed.

    >>> unpacked_int4(bytes.fromhex("f107"), 3).tolist()
    [1, -1, 7]
    """
    pairs = np.frombuffer(content, np.uint8)
    nibbles = np.stack([pairs & 0xF, pairs >> 4], axis=-1).ravel()[:count].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)
