"""The affine form of what an op computes, from those of what it takes."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.contract.preprocessing import shape_of_one

# Ops that give what they take.
_PASSING = frozenset(
    {
        *("CheckNumerics", "DebugIdentityV2", "EnsureShape", "Identity", "PreventGradient", "Snapshot", "StopGradient"),
        *("ExpandDims", "Reshape", "Squeeze"),  # in another shape, row by row
    }
)
# The float32 operation on (the value, a constant) and on (a constant, the value).
_ARITHMETIC = {
    "AddV2": ("add", "add"),
    "Add": ("add", "add"),
    "BiasAdd": ("add", None),
    "Sub": ("subtract", "subtract_from"),
    "Mul": ("multiply", "multiply"),
    "RealDiv": ("divide", None),
    "Div": ("divide", None),
}
# Constants with which an operation changes nothing.
_NEUTRAL = {"add": 0.0, "subtract": 0.0, "multiply": 1.0, "divide": 1.0}
_SELECTING = ("Select", "SelectV2")

# Ops that compute each element from that element alone, with constants, besides those that are affine.
_POINTWISE = frozenset(
    {
        *(
            "Abs",
            "Cast",
            "Ceil",
            "ClipByValue",
            "Elu",
            "Erf",
            "Exp",
            "Expm1",
            "Floor",
            "FloorDiv",
            "FloorMod",
            "Greater",
        ),
        *("GreaterEqual", "Inv", "Less", "LessEqual", "Log", "Log1p", "Maximum", "Minimum", "Mod", "Neg", "Pow"),
        *("Reciprocal", "Relu", "Relu6", "Rint", "Round", "Rsqrt", "Sigmoid", "Sign", "Softplus", "Sqrt", "Square"),
        *("SquaredDifference", "Tanh", "TruncateDiv", "Xdivy", *_ARITHMETIC),
    }
)

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AffineForm:
    """A tensor whose element i, row by row, is an affine function of element i of its source.

    Attributes:
      source: The tensor that it is computed from: a raw feature, or the result of an op that is not affine.
      shape: The shape of this tensor for one example, the batch first.
      scale: Float64 factor: a scalar, or an array of `shape`.
      offset: Float64 summand, likewise.
      operations: The float32 operations that preprocessing computes, in order, each with its constant; None if it
        computes in another type.
    """

    source: Any
    shape: tuple[int, ...]
    scale: Array
    offset: Array
    operations: tuple[tuple[str, Array], ...] | None


def start(tensor: Any, shape: tuple[int, ...]) -> AffineForm:
    """Returns the form that starts at a tensor of that shape."""
    return AffineForm(source=tensor, shape=shape, scale=np.asarray(1.0), offset=np.asarray(0.0), operations=())


def followed(op: Any, taken: list[Any]) -> AffineForm | Array | None:
    """Returns the affine form of an op's result; None if it has none that starts before it.

    Args:
      op: The op.
      taken: What is known of its operands: an affine form, a constant, or None.
    """
    shape = shape_of_one(op.outputs[0]) if op.outputs else None
    if op.type in _SELECTING:
        return _selected(taken, shape)
    forms = [value for value in taken if isinstance(value, AffineForm)]
    if len(forms) != 1 or shape is None or math.prod(shape) != math.prod(forms[0].shape):
        return None
    if op.type in _PASSING:
        return _reshaped(taken[0], shape) if isinstance(taken[0], AffineForm) else None
    if op.type == "Cast":
        return _cast(op, forms[0])
    if op.type == "Neg":
        return _computed("multiply", forms[0], np.asarray(-1, op.outputs[0].dtype.as_numpy_dtype), shape, op)
    if op.type not in _ARITHMETIC or any(value is None for value in taken):
        return None
    first = isinstance(taken[0], AffineForm)
    name = _ARITHMETIC[op.type][0 if first else 1]
    return None if name is None else _computed(name, forms[0], taken[1 if first else 0], shape, op)


def pointwise(op: Any, taken: list[Any]) -> AffineForm | None:
    """Returns a form that says no more than that each element is made of the same one of the source.

    None if the op does something else. Arguments as `followed`.
    """
    if op.type not in _POINTWISE:
        return None
    forms = [value for value in taken if isinstance(value, AffineForm)]
    shape = shape_of_one(op.outputs[0])
    if len(forms) != 1 or shape is None or math.prod(shape) != math.prod(forms[0].shape):
        return None
    if any(value is None for value in taken):
        return None
    unknown = np.asarray(np.nan)
    return AffineForm(source=forms[0].source, shape=shape, scale=unknown, offset=unknown, operations=None)


def _selected(taken: list[Any], shape: tuple[int, ...] | None) -> AffineForm | Array | None:
    """Where the condition is constant and one for all, the branch that it takes."""
    condition = taken[0]
    if not isinstance(condition, np.ndarray | np.generic) or condition.size == 0:
        return None
    if condition.all() or not condition.any():
        branch: AffineForm | Array | None = taken[1 if condition.all() else 2]
        return branch if branch is not None and branch.shape == shape else None
    return _mixed(condition, taken[1], taken[2], shape)


def _mixed(condition: Any, first: Any, second: Any, shape: tuple[int, ...] | None) -> AffineForm | None:
    """Where it takes one branch for some columns, of forms of the same source.

    Computed in the order of the operations that both have, with neutral constants where one has no more.
    """
    if not (isinstance(first, AffineForm) and isinstance(second, AffineForm)):
        return None
    if first.source is not second.source or not first.shape == second.shape == shape:
        return None
    if np.ndim(condition) not in (0, len(shape)):
        return None  # the older Select takes one condition for each row
    where = np.broadcast_to(condition, shape)
    return AffineForm(
        source=first.source,
        shape=shape,
        scale=np.where(where, first.scale, second.scale),
        offset=np.where(where, first.offset, second.offset),
        operations=_mixed_operations(where, first, second),
    )


def _mixed_operations(where: Any, first: AffineForm, second: AffineForm) -> tuple[tuple[str, Array], ...] | None:
    if first.operations is None or second.operations is None:
        return None
    longer, shorter = first.operations, second.operations
    if len(longer) < len(shorter):
        longer, shorter, where = shorter, longer, ~where
    shared = len(shorter)
    same = all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(longer[:shared], shorter, strict=True))
    if not same:
        return None
    if any(name not in _NEUTRAL for name, _ in longer[shared:]):
        return None
    rest = tuple(
        (name, np.where(where, np.broadcast_to(value, where.shape), np.float32(_NEUTRAL[name])))
        for name, value in longer[shared:]
    )
    return shorter + rest


def _reshaped(form: AffineForm, shape: tuple[int, ...]) -> AffineForm:
    operations = form.operations
    if operations is not None:
        operations = tuple((name, _as_shape(value, form.shape, shape)) for name, value in operations)
    scale, offset = (_as_shape(value, form.shape, shape) for value in (form.scale, form.offset))
    return dataclasses.replace(form, shape=shape, scale=scale, offset=offset, operations=operations)


def _as_shape(value: Any, old: tuple[int, ...], new: tuple[int, ...]) -> Array:
    return np.asarray(value) if np.size(value) == 1 else np.broadcast_to(value, old).reshape(new)


def _cast(op: Any, form: AffineForm) -> AffineForm | None:
    source, target = op.inputs[0].dtype, op.outputs[0].dtype
    if target == source:
        exact = True
    elif target == tf.float32:
        exact = source.is_integer and form.operations == ()
    elif target == tf.float64:
        exact = False
    elif source.is_integer and target.is_integer:
        low, high = source.limits
        if low < target.min or high > target.max:
            return None  # would wrap
        exact = True
    else:
        return None
    return dataclasses.replace(form, operations=form.operations if exact else None)


def _computed(name: str, form: AffineForm, constant: Any, shape: tuple[int, ...], op: Any) -> AffineForm | None:
    if not op.outputs[0].dtype.is_floating:
        return None  # integers wrap, or divide without a rest
    values = np.asarray(constant, np.float64)
    if op.type == "BiasAdd" and op.get_attr("data_format") != b"NHWC":
        return None
    if values.size > 1:
        values = np.broadcast_to(values, shape)
    if form.shape != shape:
        form = _reshaped(form, shape)
    scale, offset = form.scale, form.offset
    results: dict[str, Callable[[], tuple[Array, Array]]] = {
        "add": lambda: (scale, offset + values),
        "subtract": lambda: (scale, offset - values),
        "subtract_from": lambda: (-scale, values - offset),
        "multiply": lambda: (scale * values, offset * values),
        "divide": lambda: (scale / values, offset / values),
    }
    with np.errstate(divide="ignore", invalid="ignore"):  # of a branch that is not taken, or a mistake that stays one
        factor, summand = results[name]()
    operations = form.operations if op.outputs[0].dtype == tf.float32 else None
    if operations is not None and not (values == _NEUTRAL.get(name)).all():
        operations = (*operations, (name, np.asarray(values, np.float32)))
    return AffineForm(source=form.source, shape=shape, scale=factor, offset=summand, operations=operations)
