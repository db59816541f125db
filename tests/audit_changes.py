"""What is done to a sound model so that an audit finds one thing in it: see `audited_models.edited`."""

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from audited_models import Change

Tensors = dict[str, Any]
_POOL = "net/pool/MaxPool"


def dynamic(tensors: Tensors, _: Any) -> None:
    tensors[_POOL].shapeSignature = [-1, 2, 2, 3]


def short(tensors: Tensors, model: Any) -> None:
    model.buffers[tensors["dense/bias"].buffer].data = np.zeros(7, np.uint8)


def shared_zero_bias(tensors: Tensors, model: Any) -> None:
    model.buffers[tensors["dense/bias"].buffer].data = np.zeros(8, np.uint8)
    tensors["dense/bias"].quantization.scale = [0.7]


def float_constant(_: Tensors, model: Any) -> None:
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data, tensor.name, tensor.shape, tensor.buffer = np.zeros(4, np.uint8), "left/over", [1], len(model.buffers)
    tensor.type = schema.TensorType.FLOAT32
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)


def empty_float(_: Tensors, model: Any) -> None:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = "optional", [0], schema.TensorType.FLOAT32
    model.subgraphs[0].tensors.append(tensor)


def newer_op(_: Tensors, model: Any) -> None:
    model.operatorCodes[4].builtinCode = 9999


def version_0(_: Tensors, model: Any) -> None:
    model.operatorCodes[0].version = 0


def newer_type(tensors: Tensors, _: Any) -> None:
    tensors[_POOL].type = 99


def one_byte_less(tensors: Tensors, model: Any) -> None:
    buffer = model.buffers[tensors["net/layer/kernel"].buffer]
    buffer.data = buffer.data[:-1]


def unpacked(tensors: Tensors, model: Any) -> None:
    model.buffers[tensors["net/layer/kernel"].buffer].data = np.full(3, 7, np.uint8)


def requantized(name: str, scale: float, zero: int = 0) -> Change:
    def change(tensors: Tensors, _: Any) -> None:
        tensors[name].quantization.scale, tensors[name].quantization.zeroPoint = [scale], [zero]

    return change


def per_channel(name: str) -> Change:
    def change(tensors: Tensors, _: Any) -> None:
        tensors[name].quantization.scale, tensors[name].quantization.zeroPoint = [0.1, 0.1], [0, 0]

    return change


def unscaled(name: str) -> Change:
    def change(tensors: Tensors, _: Any) -> None:
        tensors[name].quantization = None

    return change


def shaped(name: str, shape: tuple[int, ...]) -> Change:
    def change(tensors: Tensors, _: Any) -> None:
        tensors[name].shape = list(shape)

    return change


def four_intermediates(_: Tensors, model: Any) -> None:
    operator = model.subgraphs[0].operators[0]
    operator.intermediates = operator.intermediates[:4]


def shared_buffer(tensors: Tensors, _: Any) -> None:
    tensors["conv/bias"].buffer = tensors["dense/bias"].buffer


def without_values(tensors: Tensors, _: Any) -> None:
    tensors["dense/kernel"].buffer = 0


def out_of_order(_: Tensors, model: Any) -> None:
    operators = model.subgraphs[0].operators
    operators[1], operators[2] = operators[2], operators[1]


def written_twice(_: Tensors, model: Any) -> None:
    operators = model.subgraphs[0].operators
    operators[1].outputs = operators[2].outputs


def fed_constant(_: Tensors, model: Any) -> None:
    graph = model.subgraphs[0]
    graph.inputs = [*graph.inputs, next(i for i, tensor in enumerate(graph.tensors) if tensor.name == b"shape")]


def variable_constant(tensors: Tensors, _: Any) -> None:
    tensors["dense/bias"].isVariable = True


def empty(_: Tensors, model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []


def no_weights(_: Tensors, model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, -1, 2]


def sparse(tensors: Tensors, _: Any) -> None:
    tensors["dense/kernel"].sparsity = schema.SparsityParametersT()


def signed_elsewhere(_: Tensors, model: Any) -> None:
    model.signatureDefs[1].subgraphIndex = 2


def signed_inside(_: Tensors, model: Any) -> None:
    model.signatureDefs[0].inputs[0].tensorIndex = 7


def signed_twice(_: Tensors, model: Any) -> None:
    model.signatureDefs[1].signatureKey = model.signatureDefs[0].signatureKey
