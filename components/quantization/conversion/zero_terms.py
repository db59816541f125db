"""Products with zeros and sums with zeros in a graph, such as those of the first step of an unrolled recurrent layer.

Its state is zero. TensorFlow 2.21's converter removes these, 2.16's keeps them, and has no 16-bit scale for zeros.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

_PRODUCTS = frozenset({"Mul"})
_SUMS = frozenset({"Add", "AddV2"})


def remove(definition: Any) -> bool:
    """Rewrites a GraphDef in place: a product with zeros becomes zeros, a sum with zeros the other summand.

    Operands that are no constants are left alone, and so is what broadcasts to the shape of the zeros.

    Returns:
      Whether there was any: more of the graph may be constant then.
    """
    taken = {name for node in definition.node if node.op in _PRODUCTS | _SUMS for name in node.input}
    zeros = {node.name for node in definition.node if node.name in taken and _is_zero(node)}
    found = [node for node in definition.node if node.op in _PRODUCTS | _SUMS and zeros & set(node.input)]
    if not found:
        return False
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    removed = [_remove(node, graph.get_operation_by_name(node.name), zeros) for node in found]
    return any(removed)


def _is_zero(node: Any) -> bool:
    if node.op != "Const" or not tf.as_dtype(node.attr["dtype"].type).is_floating:
        return False
    return not np.any(tf.make_ndarray(node.attr["value"].tensor))


def _remove(node: Any, operation: tf.Operation, zeros: Iterable[str]) -> bool:
    result = operation.outputs[0]
    if not result.shape.is_fully_defined():
        return False
    if node.op in _PRODUCTS:
        node.op = "Const"
        del node.input[:]
        node.attr.clear()
        node.attr["dtype"].type = result.dtype.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0.0, result.dtype, result.shape))
        return True
    kept = next((tensor for tensor in operation.inputs if tensor.op.name not in zeros), operation.inputs[0])
    if kept.shape != result.shape:
        return False
    node.op, node.input[:] = "Identity", [kept.name]
    return True
