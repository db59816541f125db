"""Small .tflite models for audits, written field by field: each differs from a sound one in what its name says."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization.conversion import flatbuffer

# Changes tensors, given by name, or anything else of a `ModelT`.
Change = Callable[[dict[str, Any], Any], None]

_DTYPES = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}
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
            full = np.broadcast_to(np.array(values, _DTYPES.get(dtype, np.int8)), shape)
            packed = flatbuffer.packed_int4(full) if dtype == "INT4" else full.tobytes()
            buffer.data = np.frombuffer(packed, np.uint8)
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


def edited(change: Change, tflite: bytes | None = None) -> bytes:
    """A model, the sound one if none is given, after a change of its tensors by name, or of the whole."""
    model = flatbuffer.read_object(tflite or sound())
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


def compiled(memory_scale: float) -> bytes:
    """A compiled op of Ethos-U, on an input and a tensor of memory that nobody writes; scale 0.0: none."""
    w = Writer()
    x, y = (w.tensor(name, (1, 4), "INT8", 0.5, 0) for name in ("x", "y"))
    memory = w.tensor("scratch", (16,), "UINT8", memory_scale or (), 0)
    w.op("ethos-u", [memory, x], [y], 1)
    return w.finish([x], [y])


def int4(
    code: str = "FULLY_CONNECTED", version: int = 10, *, units: int = 3, source: str = "INT8", weight: int = 7
) -> bytes:
    """One layer from one feature to so many, of INT4 weights: an odd number of them leaves half a byte empty."""
    w, transposed = Writer(), code == "TRANSPOSE_CONV"
    image = code != "FULLY_CONNECTED"
    x = w.tensor("x", (1, 1, 1, 1) if image else (1, 1), source, 0.5, 0)
    shapes = {"DEPTHWISE_CONV_2D": (1, 1, 1, units), "FULLY_CONNECTED": (units, 1)}
    weights = w.tensor("net/layer/kernel", shapes.get(code, (units, 1, 1, 1)), "INT4", 0.5, 0, weight)
    bias = w.tensor("b", (units,), "INT64" if source == "INT16" else "INT32", 0.25, 0, 1)
    result = (1, 1, 1, units) if image else (1, units)
    y = w.tensor("y", result, source, 0.5, 0)
    size = [w.tensor("size", (4,), "INT32", values=result)] if transposed else []
    w.op(code, [*size, weights, x, bias] if transposed else [x, weights, bias], [y], version)
    return w.finish([x], [y])


def float_edges() -> bytes:
    """An int8 RELU between a QUANTIZE and a DEQUANTIZE."""
    w = Writer()
    x, y = (w.tensor(name, (1, 4), "FLOAT32") for name in ("x", "y"))
    a, b = (w.tensor(name, (1, 4), scale=0.5, zero=0) for name in ("a", "b"))
    for code, source, result in (("QUANTIZE", x, a), ("RELU", a, b), ("DEQUANTIZE", b, y)):
        w.op(code, [source], [result])
    return w.finish([x], [y])


def dequantized_weights() -> bytes:
    """A float Dense layer whose int8 weights are made floats when it runs."""
    w = Writer()
    x, y = w.tensor("x", (1, 4), "FLOAT32"), w.tensor("y", (1, 2), "FLOAT32")
    weights = w.tensor("net/dense/kernel", (2, 4), scale=0.1, zero=0, values=1)
    floats = w.tensor("net/dense/floats", (2, 4), "FLOAT32")
    w.op("DEQUANTIZE", [weights], [floats])
    w.op("FULLY_CONNECTED", [x, floats, -1], [y])
    return w.finish([x], [y])


def variable() -> bytes:
    """A counter that is kept from run to run: handles are no numbers that anything computes with."""
    w = Writer()
    x, y = (w.tensor(name, (1, 4), scale=0.5, zero=0) for name in ("x", "y"))
    handle = w.tensor("handle", (), "RESOURCE")
    w.op("VAR_HANDLE", [], [handle])
    w.op("READ_VARIABLE", [handle], [y])
    w.op("ASSIGN_VARIABLE", [handle, x], [])
    return w.finish([x], [y])


def two_signatures(dtype: str) -> bytes:
    """Two functions in one file, each a subgraph with a signature: one of INT8, one of a type."""
    w = Writer()
    w.model.signatureDefs = []
    for index, (key, kind) in enumerate((("classify", "INT8"), ("embed", dtype))):
        if index:
            w.subgraph()
        scale = () if kind == "FLOAT32" else 0.5
        x, y = (w.tensor(f"{key}/{end}", (1, 4), kind, scale, 0) for end in ("x", "y"))
        w.op("RELU", [x], [y])
        w.graph.inputs, w.graph.outputs = [x], [y]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = key, index
        signature.inputs, signature.outputs = [], []
        for named, end, tensor in ((signature.inputs, "x", x), (signature.outputs, "y", y)):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = end, tensor
            named.append(entry)
        w.model.signatureDefs.append(signature)
    return flatbuffer.write_object(w.model)


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


def nested(depth: int) -> bytes:
    """An IF in an IF and so on, each in a subgraph of its own: the interpreter recurses into them."""
    w = Writer()
    for inner in range(1, depth + 1):
        condition, x = w.tensor("if", (), "BOOL"), w.tensor("x", (1, 4), scale=0.5, zero=0)
        y = w.tensor("y", (1, 4), scale=0.5, zero=0)
        options = schema.IfOptionsT()
        options.thenSubgraphIndex = options.elseSubgraphIndex = inner
        w.op("IF", [condition, x], [y], options=(schema.BuiltinOptions.IfOptions, options))
        w.graph.inputs, w.graph.outputs = [x], [y]
        w.subgraph()
    a, b = (w.tensor(end, (1, 4), scale=0.5, zero=0) for end in "ab")
    w.op("RELU", [a], [b])
    w.graph.inputs, w.graph.outputs = [a], [b]
    return flatbuffer.write_object(w.model)


def lstm(change: Change | None = None) -> bytes:
    """An integer LSTM, changed as by `edited`: optional inputs that are not given, and scales of values inside."""
    w = Writer()
    x = w.tensor("x", (1, 3, 2), scale=0.5, zero=0)
    gates = [w.tensor(f"net/lstm/w{i}", (2, 2), scale=0.1, zero=0, values=3) for i in range(8)]
    biases = [w.tensor(f"net/lstm/b{i}", (2,), "INT32", scale=0.05, zero=0, values=1) for i in range(4)]
    state = w.tensor("state", (1, 2), scale=0.1, zero=0)
    cell = w.tensor("cell", (1, 2), "INT16", scale=2.0**-11, zero=0)
    for index in (state, cell):
        w.graph.tensors[index].isVariable = True
    inside = [w.tensor(f"inside{i}", (0,), "FLOAT32") for i in range(4)]
    inside.append(w.tensor("hidden", (0,), scale=0.1, zero=0))
    y = w.tensor("y", (1, 3, 2), scale=0.1, zero=0)
    w.op("UNIDIRECTIONAL_SEQUENCE_LSTM", [x, *gates, -1, -1, -1, *biases, -1, -1, state, cell], [y])
    w.graph.operators[0].intermediates = inside
    tflite = w.finish([x], [y])
    return tflite if change is None else edited(change, tflite)


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
        int4(),
        two_signatures("INT8"),
    ]
