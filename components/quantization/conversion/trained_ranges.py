"""The fake quantization of a traced function: whether there is any, whether its ranges are known, and its removal."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from components.quantization.conversion import flatbuffer, int16_layers, int16_ranges
from components.quantization.conversion.frozen_graph import FAKE_QUANTIZATION_OPS as _OPS

# Of a range that was never trained, from 0 to 0, which 16 bits make symmetric and a little wider.
_EMPTY = 1e-25


def is_fake_quantization(operation: tf.Operation) -> bool:
    """Whether an operation of a graph rounds a tensor to integers."""
    return operation.type in _OPS


def has_fake_quantization(concrete: Any) -> bool:
    """Whether a concrete function contains fake quantization."""
    definition = concrete.graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    return any(node.op in _OPS for node in nodes)


def unobserved_layers(definition: Any) -> tuple[str, ...]:
    """Returns the layers whose fake quantization has an empty range, from 0 to 0, sorted.

    The converter takes such a range without a word and makes a model that knows only zeros.

    Args:
      definition: From `freeze`.
    """
    nodes = {node.name: node for node in definition.node}
    ranges = [(node.name, *(_constant(nodes, name) for name in node.input[1:3])) for node in _fake(nodes.values())]
    for node, *ends in int16_ranges.wide_nodes(list(nodes.values())):
        ranges.append((node.name, *(_constant(nodes, end) for end in ends)))
    # Ranges of weights are known by construction.
    empty = [name for name, low, high in ranges if low is not None and high is not None and (high - low < _EMPTY).all()]
    return tuple(sorted({_layer(name) for name in empty}))


def tensors_without_range(tflite: bytes) -> tuple[str, ...]:
    """Returns the names of what a file still computes in floats that was converted with trained ranges alone."""
    missing = []
    for graph in flatbuffer.read_subgraphs(tflite):
        takers: dict[int, set[str]] = {}
        for op in graph.ops:
            for index in op.inputs:
                takers.setdefault(index, set()).add(op.code)
        # What a DEQUANTIZE gives has a range, and so has what only a QUANTIZE takes.
        made = [index for op in graph.ops if op.code != "DEQUANTIZE" for index in op.outputs]
        missing += [graph.tensors[i] for i in (*graph.inputs, *made) if takers.get(i) != {"QUANTIZE"}]
    return tuple(dict.fromkeys(tensor.name for tensor in missing if tensor.dtype == "FLOAT32"))


def non_finite_layers(concrete: Any) -> tuple[str, ...]:
    """Returns the layers with a weight or an end of a range that is infinite or not a number, sorted."""
    floating = [variable for variable in concrete.variables if variable.dtype.is_floating]
    broken = (variable for variable in floating if not np.isfinite(variable.numpy()).all())
    return tuple(sorted({variable.name.rpartition("/")[0] or variable.name for variable in broken}))


def wide_tensors(definition: Any) -> tuple[int16_layers.WideTensor, ...]:
    """Returns the tensors that are rounded to 16 bits in a function of 8, out of its graph from `freeze`."""
    nodes = {node.name: node for node in definition.node}
    found = []
    for node, *ends in int16_ranges.wide_nodes(list(nodes.values())):
        minimum, maximum = (_constant(nodes, end) for end in ends)
        layer = _layer(node.input[0].split(":")[0])
        found.append(int16_layers.WideTensor(layer=layer, minimum=float(minimum), maximum=float(maximum)))
    return tuple(found)


def remove_fake_quantization(definition: Any) -> None:
    """Rewrites a GraphDef so that values pass where they were fake-quantized."""
    for node in _fake(definition.node):
        _make_identity(node)
    for function in definition.library.function:
        removed = {_make_identity(node) for node in _fake(function.node_def)}
        for node in function.node_def:
            node.input[:] = [_identity_output(name, removed) for name in node.input]
        for output, name in function.ret.items():
            function.ret[output] = _identity_output(name, removed)


def _fake(nodes: Iterable[Any]) -> Iterator[Any]:
    return (node for node in nodes if node.op in _OPS)


def _constant(nodes: Mapping[str, Any], name: str) -> Any:
    """The value of a node's output as an array; None if it is computed."""
    node = nodes.get(name.split(":")[0])
    while node is not None and node.op == "Identity":
        node = nodes.get(node.input[0].split(":")[0])
    return tf.make_ndarray(node.attr["value"].tensor) if node is not None and node.op == "Const" else None


def _layer(node: str) -> str:
    """The layer that a node is in: its innermost name scope."""
    return node.split("/")[-2] if "/" in node else node


def _make_identity(node: Any) -> str:
    node.op = "Identity"
    del node.input[1:]
    node.attr.clear()
    node.attr["T"].type = tf.float32.as_datatype_enum
    return str(node.name)


def _identity_output(name: str, removed: set[str]) -> str:
    """A reference within a function, `node:output:index`, with the name of Identity's output."""
    node, *output = name.split(":")
    return f"{node}:output:{output[1]}" if node in removed and len(output) == 2 else name
