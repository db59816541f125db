"""Proof that a .tflite file is integer-only, numerically legal and ready for its target, by parsing it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import graph as graphs
from components.quantization.conversion.audit import int4, integers, notes, numerics, recurrent, scales, shapes
from components.quantization.conversion.audit.findings import Audit, NotIntegerOnlyError, Offender
from components.quantization.conversion.audit.integers import INTEGER_DTYPES
from components.quantization.conversion.audit.rules import Found, Place
from components.quantization.conversion.profiles import ConversionProfile, load_profile
from components.quantization.schemes import QuantizationScheme

__all__ = [
    "INTEGER_DTYPES",
    "Audit",
    "NotIntegerOnlyError",
    "Offender",
    "audit",
    "rule_rows",
]

# Of a sound model each number and letter is looked at a few times. A broken one can have every op share its largest.
_TIMES_LOOKED_AT = 64
_CHECKED = (integers, graphs, scales, numerics, recurrent, int4, shapes)


def audit(
    tflite: bytes,
    profile: str | ConversionProfile | None = None,
    scheme: QuantizationScheme | None = None,
    *,
    outputs: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> Audit:
    """Proves that no float tensor is computed and that all numbers are legal, or names what prevents it.

    Every op of every subgraph is looked at: its inputs (constants too: float weights are found), its outputs and the op
    itself. Optional inputs that are not given are no offenders.

    Args:
      tflite: A TFLite flatbuffer.
      profile: The target, by name, whose rules are checked too; None for the rules of every target alone.
      scheme: The scheme that the model should be of, whose rules are checked too.
      outputs: Integers that the model computed for examples, by the name of the output's tensor: outputs that use few
        of their integers are noted.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer, or there is no such profile.

    >>> import tf_keras
    >>> from components.quantization import convert
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> audit(convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]])).integer_only
    True
    """
    target = load_profile(profile) if profile is not None else None
    model = flatbuffer.read_model(tflite)
    offenders = [found.offender("signature", -1) for found in graphs.signatures(model)]
    noted = [found.offender("unused", -1) for found in notes.unused_codes(model)]
    for index, graph in enumerate(model.subgraphs):
        offenders += _edge_offenders(index, graph)
    for place in _places(model, target, scheme, _TIMES_LOOKED_AT * len(tflite)):
        offenders += [place.offender(found) for module in _CHECKED for found in module.check(place)]
        noted += [place.offender(found) for found in notes.check(place)]
    for index, graph in enumerate(model.subgraphs):
        for found in _unused(graph):
            into = noted if found.rule.kind == "note" else offenders
            into.append(found.offender("unused", index))
    noted += [found.offender("output", 0) for found in notes.measured(model.subgraphs[0], outputs or {})]
    return Audit(
        offenders=tuple(dict.fromkeys(offenders)),
        ops=sum(len(graph.ops) for graph in model.subgraphs),
        notes=tuple(dict.fromkeys(noted)),
    )


def rule_rows() -> tuple[tuple[str, str, str, str], ...]:
    """Returns all rules and notes, as they are documented: id, kind, what it asks, what to do.

    >>> rule_rows()[0][:2]
    ('float-edge', 'integer')
    """
    return tuple((rule.name, rule.kind, rule.text, rule.fix) for module in (*_CHECKED, notes) for rule in module.RULES)


def _places(
    model: flatbuffer.Model, profile: ConversionProfile | None, scheme: QuantizationScheme | None, work: int
) -> Iterator[Place]:
    for index, graph in enumerate(model.subgraphs):
        known: dict[tuple[Any, ...], Any] = {}
        for op in graph.ops:
            place = Place(index=index, graph=graph, op=op, profile=profile, scheme=scheme, known=known)
            work -= place.work
            if work < 0:
                raise ValueError(
                    f"TFLite flatbuffer cannot be audited: op {op.index} of subgraph {index}: ops share names and"
                    " scales more often than those of models do; convert the model again"
                )
            yield place


def _edge_offenders(index: int, graph: flatbuffer.Subgraph) -> list[Offender]:
    edges = [(graph.tensors[i], "input") for i in graph.inputs] + [(graph.tensors[i], "output") for i in graph.outputs]
    checks = (integers.edge, shapes.edge)
    found = [found.offender(side, index) for check in checks for t, side in edges for found in check(t, side)]
    return found + [broken.offender(side, index) for side, broken in graphs.edges(index, graph)]


def _unused(graph: flatbuffer.Subgraph) -> Iterator[Found]:
    used = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        used |= {*op.inputs, *op.outputs, *op.intermediates}
    for tensor in graph.tensors:
        if tensor.index not in used:
            yield from integers.unused(tensor)
            yield from notes.unused(tensor)
