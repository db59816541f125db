"""The fake quantization of a traced function: whether there is any, whether its ranges are known, and its removal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from components.quantization.conversion import int16_layers, int16_ranges

# With scalar ranges, and with one per channel.
_OPS = frozenset({int16_ranges.FAKE_QUANTIZATION, f"{int16_ranges.FAKE_QUANTIZATION}PerChannel"})


def frozen(concrete: Any) -> Any:
    """Returns the graph of a concrete function, functions inlined and variables as constants."""
    return convert_variables_to_constants_v2(concrete, lower_control_flow=False).graph.as_graph_def()


def is_fake_quantization(operation: tf.Operation) -> bool:
    """Whether an operation of a graph rounds a tensor to integers."""
    return operation.type in _OPS


def has_fake_quantization(concrete: Any) -> bool:
    """Whether a concrete function contains fake quantization."""
    definition = concrete.graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    return any(node.op in _OPS for node in nodes)


def unobserved_layers(concrete: Any) -> tuple[str, ...]:
    """Returns the layers whose fake quantization has an empty range, from 0 to 0, sorted.

    The converter takes such a range without a word and makes a model that knows only zeros.
    """
    nodes = {node.name: node for node in frozen(concrete).node}
    ranges = [(node.name, *(_constant(nodes, name) for name in node.input[1:3])) for node in _fake(nodes.values())]
    for node, *ends in int16_ranges.wide_nodes(list(nodes.values())):
        ranges.append((node.name, *(_constant(nodes, end) for end in ends)))
    # Ranges that are computed, such as those of weights, are known by construction.
    empty = [name for name, low, high in ranges if low is not None and high is not None and (low >= high).all()]
    # Those of 16 bits are made symmetric first.
    empty += [
        node.name
        for node in _fake(nodes.values())
        if _all_zero([leaf for name in node.input[1:3] for leaf in _leaves(nodes, name)])
    ]
    return tuple(sorted({_layer(name) for name in empty}))


def non_finite_layers(concrete: Any) -> tuple[str, ...]:
    """Returns the layers with a weight or an end of a range that is infinite or not a number, sorted."""
    floating = [variable for variable in concrete.variables if variable.dtype.is_floating]
    broken = (variable for variable in floating if not np.isfinite(variable.numpy()).all())
    return tuple(sorted({variable.name.rpartition("/")[0] or variable.name for variable in broken}))


def wide_tensors(concrete: Any) -> tuple[int16_layers.WideTensor, ...]:
    """Returns the tensors that are rounded to 16 bits in a function of 8."""
    nodes = {node.name: node for node in frozen(concrete).node}
    found = []
    for node, *ends in int16_ranges.wide_nodes(list(nodes.values())):
        minimum, maximum = (_constant(nodes, end) for end in ends)
        layer = _layer(node.input[0].split(":")[0])
        found.append(int16_layers.WideTensor(layer=layer, minimum=float(minimum), maximum=float(maximum)))
    return tuple(found)


def remove_fake_quantization(saved_model: Path) -> None:
    """Rewrites a SavedModel so that values pass where they were fake-quantized."""
    path = saved_model / "saved_model.pb"
    content = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in content.meta_graphs:
        for node in _fake(graph.graph_def.node):
            _make_identity(node)
        for function in graph.graph_def.library.function:
            removed = {_make_identity(node) for node in _fake(function.node_def)}
            for node in function.node_def:
                node.input[:] = [_identity_output(name, removed) for name in node.input]
            for output, name in function.ret.items():
                function.ret[output] = _identity_output(name, removed)
    path.write_bytes(content.SerializeToString(deterministic=True))


def _fake(nodes: Iterable[Any]) -> Iterator[Any]:
    return (node for node in nodes if node.op in _OPS)


def _constant(nodes: Mapping[str, Any], name: str) -> Any:
    """The value of a node's output as an array; None if it is computed."""
    node = nodes.get(name.split(":")[0])
    while node is not None and node.op == "Identity":
        node = nodes.get(node.input[0].split(":")[0])
    return tf.make_ndarray(node.attr["value"].tensor) if node is not None and node.op == "Const" else None


def _leaves(nodes: Mapping[str, Any], name: str) -> list[Any]:
    """The floats that a node's output is computed from, each an array; one that is fed is None."""
    found, seen, left = [], set(), [name]
    while left:
        node = nodes.get(left.pop().split(":")[0].removeprefix("^"))
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        left += node.input
        if node.op == "Const" and tf.as_dtype(node.attr["dtype"].type).is_floating:
            found.append(tf.make_ndarray(node.attr["value"].tensor))
        elif node.op == "Placeholder":
            found.append(None)
    return found


def _all_zero(leaves: Sequence[Any]) -> bool:
    """Whether they are the ends of a range that is not known yet: scalars, as the values of weights are not."""
    return bool(leaves) and all(leaf is not None and leaf.ndim == 0 and leaf == 0.0 for leaf in leaves)


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
