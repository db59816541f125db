"""Folds preprocessing and quantization into the shortest arithmetic that gives the same integers, and verifies it."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.contract import arithmetic, schema
from components.quantization.contract.affine import affine_form
from components.quantization.contract.affine_ops import AffineForm, Array, start
from components.quantization.contract.client_steps import client_steps, raw_features, source_name
from components.quantization.contract.preparations import Case, preparations
from components.quantization.contract.preprocessing import FrozenGraph, shape_of_one
from components.quantization.interpreter import quantize

_BYTES = ("uint8", "int8")
_MOST_VALUES = 65_536  # integers of a declared domain up to which all are tried
_ROWS = 16  # computed at a time: images are large
_PROBES = 256  # made-up values of each element, fewer where there are many elements
_MOST_PROBED = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """What a preparation is verified with.

    Attributes:
      raw: Arrays of (examples, ...) by name of the raw feature; None if there are none.
      features: What preprocessing made of them, by name of the model's input; None likewise.
      domains: The smallest and the largest value of raw integer features (or floats that are whole), by name.
    """

    raw: Mapping[str, npt.ArrayLike] | None
    features: Mapping[str, Array] | None
    domains: Mapping[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """The way to one input of the model, and the tensor of the graph from which it starts."""

    preparation: schema.Preparation
    source: Any


def fold(graph: FrozenGraph, edge: schema.Edge, samples: Samples) -> Folded:
    """Returns the way to one input of the model.

    Args:
      graph: Preprocessing.
      edge: The input.
      samples: What to verify with.

    Raises:
      ValueError: If preprocessing does not give the input, or in another shape or type.
    """
    if edge.name not in graph.outputs:
        raise ValueError(
            f"preprocessing gives no {edge.name!r}, which the model takes; it gives {', '.join(sorted(graph.outputs))}"
        )
    result = graph.outputs[edge.name]
    shape = shape_of_one(result) or edge.shape
    if math.prod(shape) != math.prod(edge.shape):
        raise ValueError(f"input {edge.name!r}: preprocessing gives shape {shape}, the model takes {edge.shape}")
    for candidate in _candidates(graph, result, shape, samples):
        case = _case(graph, edge, candidate, samples)
        for kind in preparations(case):
            found = _verified(graph, case, kind)
            if found is not None:
                return Folded(preparation=found, source=candidate.source)
    raise ValueError(
        f"input {edge.name!r}: no arithmetic gives the integers of preprocessing and quantization; is it deterministic?"
    )


def _candidates(graph: FrozenGraph, result: Any, shape: tuple[int, ...], samples: Samples) -> Iterator[AffineForm]:
    """Forms that the preparation may have, those that leave the least to the client first."""
    affine, pointwise = affine_form(result), affine_form(result, any_pointwise=True)
    if affine is not None and pointwise is not None and pointwise.source is not affine.source:
        name = source_name(pointwise.source, graph.features)
        if _domain(pointwise.source.dtype.name, samples.domains.get(name)):
            yield pointwise
    if affine is not None:
        yield affine
    yield start(result, shape)  # all preprocessing is the client's


def _case(graph: FrozenGraph, edge: schema.Edge, form: AffineForm, samples: Samples) -> Case:
    name = source_name(form.source, graph.features)
    shape = shape_of_one(form.source) or form.shape
    dtype = form.source.dtype.as_numpy_dtype
    domain = _domain(form.source.dtype.name, samples.domains.get(name))
    if domain is not None:
        values = np.stack([np.full(shape[1:], value, dtype) for value in domain])
        method = "exhaustive"
    elif (found := source_values(graph, form.source, samples)) is not None:
        values, method = found, "examples"
    else:
        values, method = _probes(edge, form, shape), "construction"
    if method == "examples" and samples.features is not None:
        expected = pipeline_integers(edge, samples.features[edge.name])
    else:
        expected = _integers_of(graph, edge, form, values)
    probes = _probes(edge, form, shape) if method == "examples" and form.operations else None
    real = source_values(graph, form.source, samples) if domain is not None else None
    return Case(
        edge=edge,
        form=form,
        values=values,
        expected=expected,
        method=method,
        first=None if domain is None else domain[0],
        examples=()
        if real is None or samples.features is None
        else ((real, pipeline_integers(edge, samples.features[edge.name])),),
        probes=() if probes is None else ((probes, _integers_of(graph, edge, form, probes)),),
    )


def _integers_of(graph: FrozenGraph, edge: schema.Edge, form: AffineForm, values: Array) -> Array:
    """What the pipeline makes of values of a form's source."""
    parts = [values[row : row + _ROWS] for row in range(0, len(values), _ROWS)]
    return np.concatenate([pipeline_integers(edge, graph.run_from(form.source, edge.name, part)) for part in parts])


def _probes(edge: schema.Edge, form: AffineForm, shape: tuple[int, ...]) -> Array:
    """Values of the source, of that shape, whose images lie as near as float32 can to where the integer changes."""
    random = np.random.default_rng(0)
    count = max(1, min(_PROBES, _MOST_PROBED // max(1, math.prod(shape))))
    low, high = (-_PROBES, _PROBES) if edge.scale is None else (np.iinfo(edge.dtype).min, np.iinfo(edge.dtype).max)
    halves = random.integers(low, high, (count, *form.shape[1:])) - edge.zero_point + 0.5
    # A scale of 0 has no such values; what a type cannot hold is any other value of it.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        near = ((halves * (edge.scale or 1.0) - form.offset) / form.scale).astype(np.float32)
        near = np.nan_to_num(near, posinf=0.0, neginf=0.0)
        steps = random.integers(-2, 3, near.shape).astype(np.float32)
        near += steps * np.spacing(near)
        return np.asarray(near.reshape(count, *shape[1:]).astype(form.source.dtype.as_numpy_dtype))


def source_values(graph: FrozenGraph, source: Any, samples: Samples) -> Array | None:
    """Returns the values of a tensor for the raw examples; None if there are none, or sparse features make it."""
    if samples.raw is None or samples.features is None:
        return None
    result = next((name for name, tensor in graph.outputs.items() if tensor is source), None)
    if result is not None:
        return samples.features[result]
    return graph.run(source, samples.raw) if graph.runs(source, samples.raw) else None


def _domain(dtype: str, declared: tuple[int, int] | None) -> range | None:
    if declared is not None and 0 <= declared[1] - declared[0] < _MOST_VALUES:
        return range(declared[0], declared[1] + 1)
    if dtype not in _BYTES:
        return None
    limits = np.iinfo(dtype)
    return range(limits.min, limits.max + 1)


def pipeline_integers(edge: schema.Edge, features: Array) -> Array:
    """What the pipeline feeds the model: features quantized as `IntegerModel` does; those without scale as they are."""
    shaped = features.reshape(len(features), *edge.shape[1:])
    if edge.scale is None:
        return shaped.astype(edge.dtype)
    return quantize(shaped, edge.scale, edge.zero_point, edge.dtype)


def _verified(graph: FrozenGraph, case: Case, kind: dict[str, Any]) -> schema.Preparation | None:
    """The preparation, if it gives the expected integers of all values, of examples and of probes if there are any."""
    found = schema.Preparation(
        source=source_name(case.form.source, graph.features),
        source_dtype=case.form.source.dtype.name,
        source_shape=shape_of_one(case.form.source) or case.form.shape,
        raw_features=raw_features(case.form.source, graph.features),
        client_steps=client_steps(case.form.source, graph.features),
        verified=schema.Verification(method=case.method, count=len(case.values), mismatches=0),
        **kind,
    )
    entry = schema.entry_dict(schema.Input(**_fields(case.edge), preparation=found))
    pairs = [(case.values, case.expected), *case.examples, *case.probes]
    return found if all(_equal(entry, *pair) for pair in pairs) else None


def _equal(entry: dict[str, Any], values: Array, expected: Array) -> bool:
    rows = range(0, len(values), _ROWS)
    return len(values) == len(expected) and all(
        np.array_equal(arithmetic.quantize(entry, values[row : row + _ROWS]), expected[row : row + _ROWS])
        for row in rows
    )


def _fields(edge: schema.Edge) -> dict[str, Any]:
    return {field.name: getattr(edge, field.name) for field in dataclasses.fields(schema.Edge)}
