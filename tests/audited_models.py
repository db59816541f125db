"""Small .tflite models for audits, written field by field: each differs from a sound one in what its name says."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization.conversion import flatbuffer

_DTYPES = {"INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64}
_DTYPES |= {"FLOAT32": np.float32}


class Writer:
    """Writes one model; tensors are named in the order of what is added."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.operatorCodes, self.model.subgraphs = 3, [], []
        self.model.buffers = [schema.BufferT()]
        self.subgraph()

    def subgraph(self) -> None:
        """Begins another subgraph."""
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self.model.subgraphs.append(self.graph)

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str = "INT8",
        scale: Any = (),
        zero: Any = (),
        values: Any = None,
    ) -> int:
        """Adds a tensor and returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), getattr(schema.TensorType, dtype)
        scales = [scale] if isinstance(scale, float) else list(scale)
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = [zero] * len(scales) if isinstance(zero, int) else list(zero)
        if values is not None:
            buffer = schema.BufferT()
            filled = np.broadcast_to(np.array(values, _DTYPES[dtype]), shape)
            buffer.data = np.frombuffer(filled.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(
        self, code: str, inputs: list[int], outputs: list[int], version: int = 1, options: tuple[int, Any] | None = None
    ) -> None:
        """Adds an op; a name that is no builtin is a custom op."""
        entry, operator = schema.OperatorCodeT(), schema.OperatorT()
        builtin = getattr(schema.BuiltinOperator, code, schema.BuiltinOperator.CUSTOM)
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = builtin, min(builtin, 127), version
        entry.customCode = code if builtin == schema.BuiltinOperator.CUSTOM else None
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes), inputs, outputs
        if options is not None:
            operator.builtinOptionsType, operator.builtinOptions = options
        self.model.operatorCodes.append(entry)
        self.graph.operators.append(operator)

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Returns the file."""
        self.graph.inputs, self.graph.outputs = inputs, outputs
        return flatbuffer.write_object(self.model)


@functools.cache
def sound() -> bytes:
    """An int8 CONV_2D (3 channels), MAX_POOL_2D, RESHAPE, FULLY_CONNECTED and SOFTMAX, without offender."""
    w = Writer()
    x = w.tensor("x", (1, 4, 4, 2), scale=0.5, zero=0)
    kernel = w.tensor("conv/kernel", (3, 1, 1, 2), scale=(0.1, 0.2, 0.4), zero=0, values=100)
    bias = w.tensor("conv/bias", (3,), "INT32", scale=(0.05, 0.1, 0.2), zero=0, values=10)
    conv = w.tensor("net/conv/Relu;net/conv/Conv2D", (1, 4, 4, 3), scale=0.25, zero=-128)
    w.op("CONV_2D", [x, kernel, bias], [conv], 3)
    pool = w.tensor("net/pool/MaxPool", (1, 2, 2, 3), scale=0.25, zero=-128)
    w.op("MAX_POOL_2D", [conv], [pool], 2)
    flat = w.tensor("net/flat/Reshape", (1, 12), scale=0.25, zero=-128)
    w.op("RESHAPE", [pool, w.tensor("shape", (2,), "INT32", values=(1, 12))], [flat])
    weights = w.tensor("dense/kernel", (2, 12), scale=0.1, zero=0, values=-50)
    offset = w.tensor("dense/bias", (2,), "INT32", scale=0.025, zero=0, values=7)
    logits = w.tensor("net/dense/BiasAdd", (1, 2), scale=0.5, zero=0)
    w.op("FULLY_CONNECTED", [flat, weights, offset], [logits], 4)
    y = w.tensor("y", (1, 2), scale=1 / 256, zero=-128)
    w.op("SOFTMAX", [logits], [y], 2)
    return w.finish([x], [y])


def edited(change: Callable[[dict[str, Any], Any], None]) -> bytes:
    """The sound model after a change of its tensors by name, or of the whole."""
    model = flatbuffer.read_object(sound())
    change({tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}, model)
    return flatbuffer.write_object(model)


def quantized(name: str, scale: Any = None, zero: Any = None, axis: int | None = None) -> bytes:
    """The sound model with other scales, zero points or another dimension of a tensor."""

    def change(tensors: dict[str, Any], _: Any) -> None:
        quantization = tensors[name].quantization
        quantization.scale = quantization.scale if scale is None else list(scale)
        quantization.zeroPoint = quantization.zeroPoint if zero is None else list(zero)
        quantization.quantizedDimension = quantization.quantizedDimension if axis is None else axis

    return edited(change)


def filled(name: str, values: Any, dtype: Any = np.int8) -> bytes:
    """The sound model with other values of a constant."""

    def change(tensors: dict[str, Any], model: Any) -> None:
        tensor = tensors[name]
        full = np.broadcast_to(np.array(values, dtype), list(tensor.shape))
        model.buffers[tensor.buffer].data = np.frombuffer(full.tobytes(), np.uint8)

    return edited(change)


def typed(name: str, dtype: str) -> bytes:
    """The sound model with another type of a tensor."""

    def change(tensors: dict[str, Any], _: Any) -> None:
        tensors[name].type = getattr(schema.TensorType, dtype)

    return edited(change)


def one_op(code: str, ends: list[tuple[str, float, int]], *, inputs: int = 1, version: int = 1) -> bytes:
    """One op: type, scale (0.0: none) and zero point of its inputs, then of its outputs; all of shape (1, 4)."""
    w = Writer()
    made = [
        w.tensor("in" * (i < inputs) + "out" * (i >= inputs) + str(i), (1, 4), dtype, scale or (), zero)
        for i, (dtype, scale, zero) in enumerate(ends)
    ]
    w.op(code, made[:inputs], made[inputs:], version)
    return w.finish(made[:inputs], made[inputs:])


def dense(units: int, features: int, *, source: str = "INT8", bias: int = 0, bias_dtype: str = "INT32") -> bytes:
    """One FULLY_CONNECTED layer of a given size, all weights 127."""
    w = Writer()
    x = w.tensor("x", (1, features), source, 0.5, 0)
    weights = w.tensor("w", (units, features), scale=0.01, zero=0, values=127)
    offset = w.tensor("b", (units,), bias_dtype, scale=0.005, zero=0, values=bias)
    y = w.tensor("y", (1, units), source, 0.5, 0)
    w.op("FULLY_CONNECTED", [x, weights, offset], [y], 4)
    return w.finish([x], [y])


def branches(dtype: str, *, called: tuple[int, int] = (1, 2)) -> bytes:
    """An IF whose branches are subgraphs 1 and 2; the second computes in a type."""
    w = Writer()
    ends = [w.tensor("if", (), "BOOL"), w.tensor("x", (1, 4), scale=0.5, zero=0)]
    y = w.tensor("y", (1, 4), scale=0.5, zero=0)
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = called
    w.op("IF", ends, [y], options=(schema.BuiltinOptions.IfOptions, options))
    w.graph.inputs, w.graph.outputs = ends, [y]
    for kind in ("INT8", dtype):
        w.subgraph()
        scale = 0.5 if kind == "INT8" else ()
        a, b = (w.tensor(f"{kind}/{end}", (1, 4), kind, scale, 0) for end in ("a", "b"))
        w.op("RELU", [a], [b])
        w.graph.inputs, w.graph.outputs = [a], [b]
    return flatbuffer.write_object(w.model)


def lstm() -> bytes:
    """An integer LSTM's shape: optional inputs that are not given, and scales of values inside as float tensors."""
    w = Writer()
    x = w.tensor("x", (1, 3, 2), scale=0.5, zero=0)
    gates = [w.tensor(f"w{i}", (2, 2), scale=0.1, zero=0, values=3) for i in range(8)]
    biases = [w.tensor(f"b{i}", (2,), "INT32", scale=0.05, zero=0, values=1) for i in range(4)]
    state = w.tensor("state", (1, 2), scale=0.1, zero=0)
    cell = w.tensor("cell", (1, 2), "INT16", scale=2.0**-11, zero=0)
    inside = [w.tensor(f"inside{i}", (0,), "FLOAT32") for i in range(4)]
    y = w.tensor("y", (1, 3, 2), scale=0.1, zero=0)
    w.op("UNIDIRECTIONAL_SEQUENCE_LSTM", [x, *gates, -1, -1, -1, *biases, -1, -1, state, cell], [y])
    w.graph.operators[0].intermediates = inside
    return w.finish([x], [y])


def all_models() -> list[bytes]:
    """One of each kind, to be broken."""
    return [
        sound(),
        one_op("ADD", [("INT8", 0.5, 0)] * 3, inputs=2),
        one_op("MyOp", [("INT8", 0.5, 0)] * 2),
        one_op("RELU", [("FLOAT32", 0.0, 0)] * 2),
        dense(3, 8, source="INT16", bias_dtype="INT64"),
        branches("INT8"),
        lstm(),
    ]
