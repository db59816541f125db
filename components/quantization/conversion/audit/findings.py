"""What an audit found: offenders and notes, as a table, as JSON and as an error."""

import dataclasses
import json
from typing import Any

_FORMAT = 1  # the version of the JSON form
_WIDEST = 60  # columns of the table; longer names push the rest of their line aside


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Offender:
    """One thing that a rule forbids, or, as a note, one thing to know.

    Attributes:
      rule: The id of the rule, see `rule_rows`.
      kind: What the rule is about: "integer" if something is computed in floats, "graph" if ops and tensors do not hang
        together, "numeric", "shape", "scheme", or "profile" if only the target forbids it; "note" if nothing does.
      subgraph: Index of the subgraph; -1 for the model as a whole.
      op_index: Index of the op in the subgraph; -1 for an input or output of the model, or a tensor that no op uses.
      op: Name of the op; "input", "output", "signature" or "unused" without one.
      tensor: Name of the tensor; empty if the op itself offends.
      layer: The Keras layer, as the name of the tensor tells; empty if it does not.
      text: What the rule asks, the sentence that documents it.
      reason: What is wrong.
      fix: What to do about it.
    """

    rule: str
    kind: str
    subgraph: int
    op_index: int
    op: str
    tensor: str
    layer: str
    text: str
    reason: str
    fix: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What an audit found: every offender, not the first.

    Attributes:
      offenders: What breaks a rule; empty for a model that is ready.
      ops: Number of ops in all subgraphs.
      notes: What breaks no rule and is worth to know.
    """

    offenders: tuple[Offender, ...]
    ops: int
    notes: tuple[Offender, ...] = ()

    @property
    def integer_only(self) -> bool:
        """Whether no float tensor is computed, fed or returned."""
        return not any(offender.kind == "integer" for offender in self.offenders)

    @property
    def ready(self) -> bool:
        """Whether no rule is broken."""
        return not self.offenders

    def __str__(self) -> str:
        """A table of the offenders, one a line, and below it what the rules ask."""
        if not self.offenders:
            return f"integer-only: {self.ops} ops, no offender"
        return _table(self.offenders)

    def to_dict(self) -> dict[str, Any]:
        """Returns the audit as JSON types.

        Returns:
          "format" (1), "ops", "integer_only", "ready", and "offenders" and "notes": lists of the attributes of
          `Offender`. Keys are only added while the format stays the same.
        """
        return {
            "format": _FORMAT,
            "ops": self.ops,
            "integer_only": self.integer_only,
            "ready": self.ready,
            "offenders": [dataclasses.asdict(offender) for offender in self.offenders],
            "notes": [dataclasses.asdict(note) for note in self.notes],
        }

    def to_json(self) -> str:
        """Returns `to_dict` as text, the same for the same audit.

        >>> Audit(offenders=(), ops=0).to_json().splitlines()[1]
        '  "format": 1,'
        """
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"


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


def _table(found: tuple[Offender, ...]) -> str:
    rows = [("op", "name", "tensor", "layer", "rule", "reason; fix")]
    for o in found:
        place = f"{o.subgraph}:{o.op_index}" if o.op_index >= 0 else "i/o" if o.op in ("input", "output") else "-"
        rows.append((place, o.op, o.tensor or "-", o.layer or "-", o.rule, f"{o.reason}; {o.fix}"))
    widths = [min(max(len(row[column]) for row in rows), _WIDEST) for column in range(5)]
    lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(5)), row[5]]) for row in rows]
    return "\n".join([*lines, *dict.fromkeys(f"{o.rule}: {o.text}" for o in found)])
