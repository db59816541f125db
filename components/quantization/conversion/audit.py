"""Proof that a .tflite file is integer-only, by parsing it."""

import dataclasses

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.profiles import ConversionProfile, load_profile

INTEGER_DTYPES = frozenset({"INT4", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL"})
# Ops whose presence means that a value leaves the integer domain, or that the TFLite builtins cannot run it.
_NEVER_INTEGER = {
    "DEQUANTIZE": "turns integers into floats",
    "FAKE_QUANT": "computes in floats",
    "CUSTOM": "is not a TFLite builtin",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Offender:
    """One thing that a rule forbids.

    Attributes:
      rule: "integer" if it computes in floats, "profile" if only the target forbids it.
      subgraph: Index of the subgraph.
      op_index: Index of the op in the subgraph; -1 for an input or output of the model.
      op: Name of the op.
      tensor: Name of the tensor; empty if the op itself offends.
      reason: What is wrong.
    """

    rule: str
    subgraph: int
    op_index: int
    op: str
    tensor: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What an audit found: every offender, not the first.

    Attributes:
      offenders: What breaks a rule; empty for a model that is ready.
      ops: Number of ops in all subgraphs.
    """

    offenders: tuple[Offender, ...]
    ops: int

    @property
    def integer_only(self) -> bool:
        """Whether no float tensor is computed, fed or returned."""
        return not any(offender.rule == "integer" for offender in self.offenders)

    def __str__(self) -> str:
        """A table of the offenders, one a line."""
        if not self.offenders:
            return f"integer-only: {self.ops} ops, no offender"
        rows = [("op", "name", "tensor", "reason")]
        rows += [
            (f"{o.subgraph}:{o.op_index}" if o.op_index >= 0 else "i/o", o.op, o.tensor, o.reason)
            for o in self.offenders
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
        )


class NotIntegerOnlyError(ValueError):
    """A converted model breaks a rule of its audit.

    Attributes:
      audit: The audit with its offenders.
    """

    def __init__(self, audit: Audit, remedy: str = "replace the layers that made them") -> None:
        self.audit = audit
        what = "is not ready for its target" if audit.integer_only else "is not integer-only"
        count = len(audit.offenders)
        super().__init__(f"the converted model {what}: {count} offender{'s' if count > 1 else ''}; {remedy}\n{audit}")


def audit(tflite: bytes, profile: str | ConversionProfile | None = None) -> Audit:
    """Proves that no float tensor is computed, or names what prevents it.

    Every op of every subgraph is looked at: its inputs (constants too: float weights are found), its outputs and the op
    itself. Optional inputs that are not given are no offenders.

    Args:
      tflite: A TFLite flatbuffer.
      profile: The target, by name, whose rules are checked too; None for the integer proof alone.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer, or there is no such profile.

    >>> import tf_keras
    >>> from components.quantization import convert
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> audit(convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]])).integer_only
    True
    """
    rules = load_profile(profile) if profile is not None else None
    subgraphs = flatbuffer.read_subgraphs(tflite)
    offenders: list[Offender] = []
    for index, subgraph in enumerate(subgraphs):
        offenders += _edge_offenders(index, subgraph)
        for op in subgraph.ops:
            offenders += _integer_offenders(index, subgraph, op)
            offenders += _profile_offenders(index, subgraph, op, rules) if rules else []
    return Audit(offenders=tuple(offenders), ops=sum(len(subgraph.ops) for subgraph in subgraphs))


def several_scales(tflite: bytes) -> tuple[str, ...]:
    """Returns the weights that have more than one scale, each as the op that takes it and its name.

    Args:
      tflite: A TFLite flatbuffer.
    """
    return tuple(
        f"{op.code} ({graph.tensors[index].name})"
        for graph in flatbuffer.read_subgraphs(tflite)
        for op in graph.ops
        for index in op.inputs[1:2]
        if graph.tensors[index].constant is not None and len(graph.tensors[index].scale) > 1
    )


def _edge_offenders(index: int, subgraph: flatbuffer.Subgraph) -> list[Offender]:
    edges = [(i, "input") for i in subgraph.inputs] + [(i, "output") for i in subgraph.outputs]
    return [
        Offender(
            rule="integer",
            subgraph=index,
            op_index=-1,
            op=edge,
            tensor=subgraph.tensors[i].name,
            reason=f"{edge} of the model is {subgraph.tensors[i].dtype}",
        )
        for i, edge in edges
        if subgraph.tensors[i].dtype not in INTEGER_DTYPES
    ]


def _integer_offenders(index: int, subgraph: flatbuffer.Subgraph, op: flatbuffer.Op) -> list[Offender]:
    found = []
    if op.code in _NEVER_INTEGER:
        found.append(("", _NEVER_INTEGER[op.code]))
    for tensor in (subgraph.tensors[i] for i in (*op.inputs, *op.outputs)):
        if tensor.dtype not in INTEGER_DTYPES:
            found.append((tensor.name, f"{'constant' if tensor.constant else 'computed'} tensor is {tensor.dtype}"))
    return [
        Offender(rule="integer", subgraph=index, op_index=op.index, op=op.name, tensor=tensor, reason=reason)
        for tensor, reason in found
    ]


def _profile_offenders(
    index: int, subgraph: flatbuffer.Subgraph, op: flatbuffer.Op, profile: ConversionProfile
) -> list[Offender]:
    found = []
    if op.code == "FULLY_CONNECTED" and not profile.per_channel_dense:
        weights = subgraph.tensors[op.inputs[1]]
        if len(weights.scale) > 1:
            found.append((weights.name, f"{len(weights.scale)} scales, {profile.name} takes one per Dense layer"))
    if 4 not in profile.weight_bits:
        packed = [subgraph.tensors[i] for i in op.inputs if subgraph.tensors[i].dtype == "INT4"]
        found += [(tensor.name, f"has 4-bit values, which {profile.name} cannot read") for tensor in packed]
    for tensor in (subgraph.tensors[i] for i in op.outputs):
        if tensor.dynamic:
            found.append((tensor.name, f"has a dynamic dimension, {profile.name} takes static shapes"))
    return [
        Offender(rule="profile", subgraph=index, op_index=op.index, op=op.name, tensor=tensor, reason=reason)
        for tensor, reason in found
    ]
