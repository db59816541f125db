"""Follows preprocessing from raw features to a model's input for as long as it is affine, element by element."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from components.quantization.contract.affine_ops import AffineForm, Array, followed, pointwise, start
from components.quantization.contract.preprocessing import ancestors, shape_of_one
from components.quantization.contract.schema import DTYPES

# Ops that depend on the shape of what they take alone.
_OF_SHAPE: dict[str, Callable[[tuple[int, ...], Any], Any]] = {
    "Shape": lambda shape, op: np.asarray(shape, op.get_attr("out_type").as_numpy_dtype),
    "Size": lambda shape, op: np.asarray(math.prod(shape), op.get_attr("out_type").as_numpy_dtype),
    "Rank": lambda shape, op: np.int32(len(shape)),
    "ZerosLike": lambda shape, op: np.zeros(shape, op.outputs[0].dtype.as_numpy_dtype),
    "OnesLike": lambda shape, op: np.ones(shape, op.outputs[0].dtype.as_numpy_dtype),
}
_HANDLES = (tf.resource, tf.variant)


def affine_form(result: Any, any_pointwise: bool = False) -> AffineForm | None:
    """Returns the longest affine form that a tensor of a frozen graph has; None for a constant, or an unknown shape.

    Its source is a placeholder, or where the first op in the way stands. A form with no operations from the tensor
    itself is always one.

    Args:
      result: The tensor.
      any_pointwise: Whether to go on through ops that compute each element from that element alone, as a logarithm
        does; scale and offset then are not numbers.
    """
    found = _walked(result, any_pointwise).values[result.ref()]
    return found if isinstance(found, AffineForm) else None


def constants(result: Any) -> dict[str, Array]:
    """Returns the values of the tensors, by name, that a tensor depends on and that depend on no raw feature."""
    values = _walked(result, any_pointwise=False).values
    return {ref.deref().name: value for ref, value in values.items() if isinstance(value, np.ndarray | np.generic)}


def _walked(result: Any, any_pointwise: bool) -> "_Walk":
    walk = _Walk(any_pointwise)
    for op in ancestors(result):
        walk.visit(op)
    return walk


class _Walk:
    """Values of the tensors seen so far: an affine form, a constant, or None where the shape is unknown."""

    def __init__(self, any_pointwise: bool) -> None:
        self._any_pointwise = any_pointwise
        self.values: dict[Any, AffineForm | Array | None] = {}

    def visit(self, op: Any) -> None:
        """Finds the values of an op's outputs."""
        taken = [self.values[value.ref()] for value in op.inputs]
        found: AffineForm | Array | None = self._constant(op, taken)
        if found is None:
            found = followed(op, taken)
        if found is None and self._any_pointwise:
            found = pointwise(op, taken)
        if found is not None:
            self.values[op.outputs[0].ref()] = found
            return
        for output in op.outputs:
            shape = shape_of_one(output)
            number = output.dtype != tf.bool and output.dtype.name in DTYPES
            self.values[output.ref()] = start(output, shape) if number and shape is not None else None

    def _constant(self, op: Any, taken: list[Any]) -> Array | None:
        if op.type == "Const":
            return np.asarray(tf.make_ndarray(op.get_attr("value")))
        if op.type in _OF_SHAPE:
            shape = shape_of_one(op.inputs[0])
            return None if shape is None else _OF_SHAPE[op.type](shape, op)
        if not taken or not all(isinstance(value, np.ndarray | np.generic) for value in taken):
            return None
        simple = len(op.outputs) == 1 and not op.op_def.is_stateful and op.outputs[0].dtype not in _HANDLES
        return _evaluated(op, taken) if simple else None


def _evaluated(op: Any, taken: list[Any]) -> Array | None:
    """The value of an op that takes constants."""
    if any(attr.HasField("func") for attr in op.node_def.attr.values()):
        return None
    with tf.Graph().as_default():
        constants = {f"input_{index}": tf.constant(value) for index, value in enumerate(taken)}
        definition = tf.compat.v1.GraphDef()
        node = definition.node.add()
        node.CopyFrom(op.node_def)
        node.name = "node"
        del node.input[:]
        for name, value in constants.items():
            definition.node.add(
                op="Placeholder", name=name, attr={"dtype": tf.compat.v1.AttrValue(type=value.dtype.as_datatype_enum)}
            )
            node.input.append(name)
        (result,) = tf.import_graph_def(definition, constants, return_elements=["node:0"])
        with tf.compat.v1.Session() as session:
            return np.asarray(session.run(result))
