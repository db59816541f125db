"""The preparations that an affine form may become: identity, multiply-add, lookup, or step by step."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from components.quantization.contract import schema
from components.quantization.contract.affine_ops import AffineForm, Array

_SHIFTS = (0, -128, 128)  # from a type of bytes to the same or the other
_MOST_IN_TABLE = 256  # values up to which a lookup table is written
# How many float32 steps around the rounded constants are tried, and for how many different elements.
_NEIGHBOURS = 3
_MOST_SEARCHED = 4_096
_MOST_ORDERS = 16  # of divisions, each exact or by the reciprocal


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One input, the form its preparation may have, and values with what the pipeline makes of them.

    Attributes:
      edge: The input.
      form: What its preparation starts from, and how it goes on.
      values: Values of the form's source, (many, *source shape).
      expected: The pipeline's integers for them, (many, *shape).
      method: How `values` were found; see `schema.Verification`.
      first: The smallest of `values`, if they are all that there are, in a row and alike for all elements; else None.
      examples: Values and integers of the raw examples, if `values` are not theirs.
      probes: Values near to where the integer changes, and their integers, if `values` are those of the examples.
    """

    edge: schema.Edge
    form: AffineForm
    values: Array
    expected: Array
    method: str
    first: int | None
    examples: tuple[tuple[Array, Array], ...]
    probes: tuple[tuple[Array, Array], ...] = ()


def preparations(case: Case) -> Iterator[dict[str, Any]]:
    """Yields the fields of each `schema.Preparation` that may do, the shortest first."""
    edge, form = case.edge, case.form
    whole = form.source.dtype.is_integer
    if edge.scale is None:
        if form.operations == ():
            yield {"kind": "identity"}
        elif edge.dtype == "float32":
            for operations in _orders_of_rounding(form):
                yield {"kind": "steps", "operations": operations}
        return
    if whole and case.first is not None:
        shift = int(case.expected.flat[0]) - case.first
        if shift in _SHIFTS:
            yield {"kind": "identity", "shift": shift}
    if case.method != "construction" or form.operations == ():  # with none, the constants are those of quantization
        yield from _multiply_add(case)
    table = _tables(case)
    if table is not None:
        yield {"kind": "lookup", "first": case.first, "tables": table}
    for operations in _orders_of_rounding(form):
        yield {"kind": "steps", "operations": operations}


def _orders_of_rounding(form: AffineForm) -> Iterator[tuple[schema.Operation, ...]]:
    """Preprocessing's own operations: as written, and as TensorFlow's optimizer computes divisions by constants.

    That multiplies by the float32 reciprocal:
    https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/core/grappler/optimizers/constant_folding.cc
    """
    if form.operations is None or not all(np.isfinite(value).all() for _, value in form.operations):
        return
    choices = []
    for name, value in form.operations:
        choice = [schema.Operation(op=name, values=_listed(value))]
        if name == "divide" and value.all():
            choice.append(
                schema.Operation(op="multiply", values=_listed(np.float32(1) / np.asarray(value, np.float32)))
            )
        choices.append(choice)
    yield from itertools.islice(itertools.product(*choices), _MOST_ORDERS)


def _listed(values: Array) -> tuple[float, ...]:
    """One float32 for all elements, one per channel, or one each: the fewest that say it."""
    return tuple(float(value) for value in _fewest(np.asarray(values, np.float32)))


def _fewest(values: Array) -> Array:
    if values.size == 1 or (values == values.flat[0]).all():
        return values.ravel()[:1]
    channels = values.reshape(-1, values.shape[-1])
    return channels[0] if (channels == channels[0]).all() else values.ravel()


def _multiply_add(case: Case) -> Iterator[dict[str, Any]]:
    """The rounded constants; then, where all values are known, neighbours of those that give other integers."""
    step = np.float64(np.float32(1) / np.float32(case.edge.scale))
    constants = [np.asarray(value * step, np.float32) for value in (case.form.scale, case.form.offset)]
    if not all(np.isfinite(value).all() for value in constants):
        return
    yield {"kind": "affine", "multiplier": _listed(constants[0]), "offset": _listed(constants[1])}
    if case.first is None:
        return
    multiplier, offset = (np.broadcast_to(value, case.form.shape).ravel().copy() for value in constants)
    values, expected = (array.reshape(len(array), -1) for array in (case.values, case.expected))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for element in range(len(multiplier)):
        key = (multiplier[element], offset[element], expected[:, element].tobytes())
        groups.setdefault(key, []).append(element)
        if len(groups) > _MOST_SEARCHED:
            return
    for (factor, summand, _), elements in groups.items():
        found = _neighbour(case.edge, values[:, elements[0]], expected[:, elements[0]], (factor, summand))
        if found is None:
            return
        multiplier[elements], offset[elements] = found
    shaped = [_listed(value.reshape(case.form.shape)) for value in (multiplier, offset)]
    yield {"kind": "affine", "multiplier": shaped[0], "offset": shaped[1]}


def _neighbour(edge: schema.Edge, values: Array, expected: Array, around: tuple[Any, Any]) -> tuple[Any, Any] | None:
    """The nearest multiplier and offset that give all integers of one element; None if no neighbours do."""
    limits, x = np.iinfo(edge.dtype), values.astype(np.float32)
    factor, summand = around
    sizes = np.spacing(np.abs(factor)), np.spacing(max(np.abs(summand), np.abs(factor * x).max()))
    near = range(-_NEIGHBOURS, _NEIGHBOURS + 1)
    for i, j in sorted(itertools.product(near, near), key=lambda pair: abs(pair[0]) + abs(pair[1])):
        m, o = np.float32(factor + i * sizes[0]), np.float32(summand + j * sizes[1])
        made = np.clip(np.rint(x * m + o) + np.float32(edge.zero_point), limits.min, limits.max)
        if (made == expected).all():
            return m, o
    return None


def _tables(case: Case) -> tuple[tuple[int, ...], ...] | None:
    """All integers, for all elements alike or per channel; None if they are too many, or differ by place."""
    if case.first is None or len(case.values) > _MOST_IN_TABLE:
        return None
    rows = case.expected.reshape(len(case.expected), -1).T  # (elements, values)
    channels = case.form.shape[-1]
    per_channel = rows.reshape(-1, channels, rows.shape[1])
    if not (per_channel == per_channel[0]).all():
        return None
    tables = per_channel[0][:1] if (per_channel[0] == per_channel[0][0]).all() else per_channel[0]
    return tuple(tuple(int(value) for value in row) for row in tables)
