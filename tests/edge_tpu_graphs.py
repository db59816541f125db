"""Small .tflite files, op by op: what the Edge TPU's rules are tried on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization.conversion import flatbuffer


class Net:
    """A model under construction; tensors are named by their indices."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model.subgraphs = [self._graph]

    def tensor(self, *shape: int, dtype: str = "INT8", values: Any = None, zero_point: int = 0, scales: int = 1) -> int:
        """Adds a tensor, a constant if it has values: numbers, or one for all."""
        tensor = schema.TensorT()
        tensor.shape, tensor.type = list(shape), getattr(schema.TensorType, dtype)
        tensor.name = f"tensor{len(self._graph.tensors)}"
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [0.5] * scales, [zero_point] * scales
        if values is not None:
            buffer = schema.BufferT()
            numbers = np.broadcast_to(np.asarray(values, dtype.lower()), shape)
            buffer.data = np.frombuffer(numbers.tobytes(), np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def op(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        version: int = 1,
        options: str = "",
        **fields: Any,
    ) -> None:
        """Adds an op; options are those of the schema by the name of their type, such as "Pool2DOptions"."""
        builtin = getattr(schema.BuiltinOperator, code)
        named = schema.OperatorCodeT()
        named.builtinCode, named.deprecatedBuiltinCode, named.version = builtin, min(builtin, 127), version
        self._model.operatorCodes.append(named)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                setattr(operator.builtinOptions, name, value)
        self._graph.operators.append(operator)

    def subgraph(self) -> None:
        """Begins a subgraph, which later tensors and ops belong to."""
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model.subgraphs.append(self._graph)

    def tflite(self) -> bytes:
        """Returns the file."""
        return flatbuffer.write_object(self._model)


def unary(code: str, *shape: int, version: int = 1, dtype: str = "INT8") -> bytes:
    """Returns a model of one op with one operand."""
    net = Net()
    net.op(code, [net.tensor(*shape, dtype=dtype)], [net.tensor(*shape, dtype=dtype)], version)
    return net.tflite()


def chain(*codes: str) -> bytes:
    """Returns a model of ops in a row, each on what the one before computed."""
    net = Net()
    before = net.tensor(1, 8)
    for code in codes:
        after = net.tensor(1, 8)
        net.op(code, [before], [after])
        before = after
    return net.tflite()


def loop(*codes: str) -> bytes:
    """Returns a model of a RELU and a WHILE, whose body multiplies by a matrix of 8 x 8, then runs the ops."""
    net = Net()
    start, middle, end = (net.tensor(1, 8) for _ in range(3))
    net.op("RELU", [start], [middle])
    net.op("WHILE", [middle], [end], options="WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=2)
    net.subgraph()
    net.op("LESS", [net.tensor(1), net.tensor(1)], [net.tensor(1, dtype="BOOL")])
    net.subgraph()
    before = net.tensor(1, 8)
    bias = net.tensor(8, dtype="INT32", values=0)
    after = net.tensor(1, 8)
    net.op("FULLY_CONNECTED", [before, net.tensor(8, 8, values=1), bias], [after])
    for code in codes:
        before, after = after, net.tensor(1, 8)
        net.op(code, [before], [after])
    return net.tflite()
