"""Ops with several outputs of which some are unused, as one slice for each that is used.

With 8 bits, TensorFlow's converter wants a scale for all outputs of such an op and drops that of an unused one, before
or after it looks, as chance has it: one and the same model became integers, was left partly in floats, or was refused
("parameters violate the same scale constraint"), by TensorFlow 2.16 and 2.21.
"""

import itertools
from collections.abc import Collection
from typing import Any

import tensorflow as tf

# The op's inputs that are the value and the axis; the axis of Unpack is an attribute.
_VALUE = {"Split": 1, "SplitV": 0, "Unpack": 0}
_AXIS = {"Split": 0, "SplitV": 2}


def slice_used(definition: Any, used: Collection[str]) -> None:
    """Rewrites a GraphDef in place so that who takes a part of a tensor takes a slice, where other parts are unused.

    Ops whose shapes are not static are left alone. The op itself stays, but nothing that is used depends on it.

    Args:
      definition: The graph.
      used: The names of tensors that are used, with their index, by what is computed in the end.
    """
    found = [node.name for node in definition.node if node.op in _VALUE and _is_partly_used(node, used)]
    if not found:
        return
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        known = len(graph.get_operations())
        slices: dict[str, str] = {}
        for name in found:
            slices |= _slices(graph.get_operation_by_name(name), used)
    definition.node.extend(operation.node_def for operation in graph.get_operations()[known:])
    for node in definition.node:
        node.input[:] = [slices.get(name if ":" in name else f"{name}:0", name) for name in node.input]


def _is_partly_used(node: Any, used: Collection[str]) -> bool:
    count = int(node.attr["num" if node.op == "Unpack" else "num_split"].i)
    return 0 < len({f"{node.name}:{index}" for index in range(count)}.intersection(used)) < count


def _slices(operation: tf.Operation, used: Collection[str]) -> dict[str, str]:
    """Adds a slice to the graph for each used output; returns their names by those of the outputs."""
    value = operation.inputs[_VALUE[operation.type]]
    unpacks = operation.type == "Unpack"
    axis = operation.get_attr("axis") if unpacks else tf.get_static_value(operation.inputs[_AXIS[operation.type]])
    if axis is None or not value.shape.is_fully_defined():
        return {}
    axis = int(axis) % value.shape.rank
    sizes = [1 if unpacks else output.shape[axis] for output in operation.outputs]
    starts = itertools.accumulate(sizes, initial=0)
    before = [slice(None)] * axis
    slices = {}
    for output, start, size in zip(operation.outputs, starts, sizes, strict=False):
        if output.name in used:
            chosen = (*before, start if unpacks else slice(start, start + size))
            slices[output.name] = value[chosen].name
    return slices
