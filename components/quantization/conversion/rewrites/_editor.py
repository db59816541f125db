"""Changes to one subgraph of a model, for the rewrites."""

from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.rewrites._content_versions import content_version
from components.quantization.conversion.tflite_schema import schema

_DTYPES: dict[int, str] = {
    schema.TensorType.INT8: "<i1",
    schema.TensorType.UINT8: "<u1",
    schema.TensorType.INT16: "<i2",
    schema.TensorType.INT32: "<i4",
    schema.TensorType.INT64: "<i8",
    schema.TensorType.FLOAT32: "<f4",
}
_TYPES = {np.dtype(dtype): tensor_type for tensor_type, dtype in _DTYPES.items()}
_LAST_OLD_CODE = 127  # what the byte field of schema 3 holds for all codes above it


class GraphEditor:
    """A subgraph as an `OperatorT` list that may be replaced, and the means to make tensors and ops.

    Attributes:
      operators: The ops in the order of execution, their inputs and outputs as lists of int.
    """

    def __init__(self, model: Any, number: int, graph: Any) -> None:
        """Takes subgraph `graph`, a `SubGraphT`, which is the one of that number in `model`, a `ModelT`."""
        self._model = model
        self._number = number
        self._graph = graph
        graph.tensors, graph.operators = graph.tensors or [], graph.operators or []
        for operator in self.operators:
            operator.inputs, operator.outputs = _ints(operator.inputs), _ints(operator.outputs)
        self._used = self._all_used()

    @property
    def operators(self) -> list[Any]:
        """The ops in the order of execution."""
        ops: list[Any] = self._graph.operators
        return ops

    @operators.setter
    def operators(self, operators: list[Any]) -> None:
        self._graph.operators = operators

    def code(self, operator: Any) -> str:
        """Returns the name of an op in the schema."""
        return flatbuffer.builtin_name(self._model.operatorCodes[operator.opcodeIndex])

    def version(self, operator: Any) -> int:
        """Returns the version of an op."""
        return int(self._model.operatorCodes[operator.opcodeIndex].version)

    def content_version(self, operator: Any) -> int | None:
        """Returns the version that an op needs by its types, shapes and options; None if that is not known here."""
        return content_version(self.code(operator), operator, self._graph.tensors)

    def tensor(self, index: int) -> Any:
        """Returns a `TensorT`."""
        return self._graph.tensors[index]

    def name(self, index: int) -> str:
        """Returns the name of a tensor."""
        return (self.tensor(index).name or b"").decode(errors="replace")

    def shape(self, index: int) -> tuple[int, ...]:
        """Returns the shape of a tensor."""
        shape = self.tensor(index).shape
        return () if shape is None else tuple(int(size) for size in shape)

    def constant(self, index: int) -> npt.NDArray[Any] | None:
        """Returns the value of a tensor; None if it is computed, fed, not given (-1) or of another type."""
        if index < 0:
            return None
        tensor = self.tensor(index)
        content = self._model.buffers[tensor.buffer].data if tensor.buffer else None
        if content is None or len(content) == 0 or tensor.type not in _DTYPES:
            return None
        return np.frombuffer(bytes(bytearray(content)), _DTYPES[tensor.type]).reshape(self.shape(index))

    def is_8_bit(self, index: int) -> bool:
        """Whether a tensor holds integers of 8 bits."""
        return self.tensor(index).type in (schema.TensorType.INT8, schema.TensorType.UINT8)

    def is_edge(self, index: int) -> bool:
        """Whether a tensor is an input or an output of the subgraph."""
        return index in (*_ints(self._graph.inputs), *_ints(self._graph.outputs))

    def add_like(self, index: int, name: str, shape: tuple[int, ...]) -> int:
        """Adds a computed tensor with the type, scale and zero point of another; returns its index."""
        old, new = self.tensor(index), schema.TensorT()
        new.name, new.type, new.hasRank = name.encode(), old.type, old.hasRank
        new.shape = np.asarray(shape, np.int32)
        new.quantization = _quantization(old.quantization)
        self._graph.tensors.append(new)
        return len(self._graph.tensors) - 1

    def add_constant(self, name: str, values: npt.NDArray[Any], quantization: Any = None) -> int:
        """Adds a constant; returns its index.

        Args:
          name: Its name.
          values: Its value, of a type that TFLite has.
          quantization: A `QuantizationParametersT`, or None.
        """
        new = schema.TensorT()
        new.name, new.hasRank, new.quantization = name.encode(), True, quantization
        new.shape = np.asarray(values.shape, np.int32)
        self._graph.tensors.append(new)
        index = len(self._graph.tensors) - 1
        self.make_constant(index, values)
        return index

    def make_constant(self, index: int, values: npt.NDArray[Any]) -> None:
        """Gives a tensor that nothing computes any more its value, which has its shape."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        self.tensor(index).type, self.tensor(index).buffer = _TYPES[values.dtype], len(self._model.buffers) - 1

    def channels(self, index: int, name: str, chosen: slice) -> int:
        """Adds a constant of some of the output channels, the first dimension, of weights or a bias.

        Scales and zero points go with their channels. Returns its index.
        """
        values, quantization = self.constant(index), _quantization(self.tensor(index).quantization)
        if values is None:
            raise ValueError(f"tensor {self.name(index)!r} is not a constant; only constants have parts that are known")
        if quantization is not None and len(_ints(quantization.zeroPoint)) > 1:
            quantization.scale, quantization.zeroPoint = quantization.scale[chosen], quantization.zeroPoint[chosen]
        return self.add_constant(name, values[chosen], quantization)

    def operator(self, code: str, inputs: list[int], outputs: list[int], options: Any = None) -> Any:
        """Returns a new op of the lowest version that its types, shapes and options allow.

        Args:
          code: Its name in the schema.
          inputs: Indices of the tensors that it takes.
          outputs: Indices of the tensors that it computes.
          options: Its options, for example a `Conv2DOptionsT`, or None.
        """
        new = schema.OperatorT()
        new.inputs, new.outputs, new.builtinOptions = inputs, outputs, options
        if options is not None:
            new.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.set_version(new, code, content_version(code, new, self._graph.tensors) or 1)
        return new

    def set_version(self, operator: Any, code: str, version: int) -> None:
        """Makes an op one of that code and version."""
        for place, known in enumerate(self._model.operatorCodes):
            if flatbuffer.builtin_name(known) == code and known.version == version:
                operator.opcodeIndex = place
                return
        new = schema.OperatorCodeT()
        new.builtinCode = getattr(schema.BuiltinOperator, code)
        new.deprecatedBuiltinCode = min(new.builtinCode, _LAST_OLD_CODE)
        new.version = version
        self._model.operatorCodes.append(new)
        operator.opcodeIndex = len(self._model.operatorCodes) - 1

    def remove_orphans(self) -> None:
        """Removes the tensors that were used when this editor was made and are not any more."""
        orphans = self._used - self._all_used()
        kept = [index for index in range(len(self._graph.tensors)) if index not in orphans]
        places = {old: new for new, old in enumerate(kept)} | {-1: -1}
        self._graph.tensors = [self._graph.tensors[index] for index in kept]
        for operator in self.operators:
            operator.inputs, operator.outputs = (
                [places[i] for i in side] for side in (operator.inputs, operator.outputs)
            )
            if operator.intermediates is not None:
                operator.intermediates = [places[i] for i in _ints(operator.intermediates)]
        graph = self._graph
        graph.inputs, graph.outputs = ([places[i] for i in _ints(side)] for side in (graph.inputs, graph.outputs))
        for signature in self._model.signatureDefs or []:
            if signature.subgraphIndex == self._number:
                for edge in (*(signature.inputs or []), *(signature.outputs or [])):
                    edge.tensorIndex = places[edge.tensorIndex]

    def _all_used(self) -> set[int]:
        used = {*_ints(self._graph.inputs), *_ints(self._graph.outputs)}
        for operator in self.operators:
            used |= {*operator.inputs, *operator.outputs, *_ints(operator.intermediates)}
        return used - {-1}


def _ints(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _quantization(old: Any) -> Any:
    """A copy of a `QuantizationParametersT` that may be changed."""
    if old is None:
        return None
    new = schema.QuantizationParametersT()
    new.scale, new.zeroPoint, new.quantizedDimension = old.scale, old.zeroPoint, old.quantizedDimension
    return new
