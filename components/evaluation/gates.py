"""Gates: bounds that an integer model must keep to be blessed, absolute or against its float parent."""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from components.quantization.agreement import AGREEMENT, EXAMPLE_COUNT

Kind = Literal["at_least", "at_most", "drop_at_most", "rise_at_most"]

_PHRASES: dict[Kind, str] = {
    "at_least": "{} >= {:.12g}",
    "at_most": "{} <= {:.12g}",
    "drop_at_most": "{} drop <= {:.12g}",
    "rise_at_most": "{} rise <= {:.12g}",
}
_KINDS: dict[tuple[str, str], Kind] = {
    ("", ">="): "at_least",
    ("", "<="): "at_most",
    ("drop", "<="): "drop_at_most",
    ("rise", "<="): "rise_at_most",
}
_PATTERN = re.compile(r"\s*(\w+)\s*(?:\b(drop|rise)\s*)?(>=|<=)\s*(\S+)\s*")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One bound on one metric.

    Attributes:
      metric: Name of the metric.
      kind: "at_least" and "at_most" bound the integer model's value; "drop_at_most" and "rise_at_most" bound how far it
        lies below or above the float model's.
      bound: The bound, in the metric's unit.
    """

    metric: str
    kind: Kind
    bound: float

    def __str__(self) -> str:
        """The gate as `parse` reads it."""
        return _PHRASES[self.kind].format(self.metric, self.bound)

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Reads a gate.

        Raises:
          ValueError: If the text is no gate.

        >>> Gate.parse("accuracy >= 0.97")
        Gate(metric='accuracy', kind='at_least', bound=0.97)
        >>> str(Gate.parse("accuracy drop <= 0.01"))
        'accuracy drop <= 0.01'
        """
        match = _PATTERN.fullmatch(text)
        kind = _KINDS.get((match.group(2) or "", match.group(3))) if match else None
        try:
            if match is None or kind is None or not math.isfinite(float(match.group(4))):
                raise ValueError(text)
            return cls(metric=match.group(1), kind=kind, bound=float(match.group(4)))
        except ValueError as error:
            raise ValueError(
                f"not a gate: {text!r}; write 'metric >= x', 'metric <= x', 'metric drop <= x' or 'metric rise <= x'"
            ) from error

    @property
    def is_relative(self) -> bool:
        """Whether it is held against the float model."""
        return self.kind in ("drop_at_most", "rise_at_most")

    def holds(self, value: float, parent: float) -> bool:
        """Whether the gate holds for the integer model's value and the float model's; never for what is no number."""
        return {
            "at_least": value >= self.bound,
            "at_most": value <= self.bound,
            "drop_at_most": parent - value <= self.bound,
            "rise_at_most": value - parent <= self.bound,
        }[self.kind]

    def reason(self, value: float, parent: float) -> str:
        """The gate with the figures that it was held against."""
        figures = f"{self.metric} is {value:.4f}"
        if self.is_relative:
            figures += f", float {parent:.4f}"
        return f"{self} ({figures})"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gates say of a model.

    Attributes:
      blessed: Whether every gate holds.
      reasons: Every gate with the figures that it was held against, in order.
    """

    blessed: bool
    reasons: tuple[str, ...]

    def to_json(self) -> str:
        """Returns the verdict as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def judge(gates: Sequence[Gate], integer: Mapping[str, float], parent: Mapping[str, float]) -> Verdict:
    """Holds each gate against the metrics of the integer model and of its float parent, by name.

    Raises:
      ValueError: If a gate's metric is no single number of the integer model.

    >>> judge([Gate.parse("accuracy >= 0.97")], {"accuracy": 0.96}, {"accuracy": 0.98})
    Verdict(blessed=False, reasons=('fails: accuracy >= 0.97 (accuracy is 0.9600)',))
    """
    plural = sorted({gate.metric for gate in gates} - set(integer))
    if plural:
        raise ValueError(f"gates on metrics that are not single numbers: {', '.join(plural)}; gate on others")
    figures = [(gate, integer[gate.metric], parent.get(gate.metric, math.nan)) for gate in gates]
    held = [gate.holds(value, of_parent) for gate, value, of_parent in figures]
    reasons = [
        f"{'holds' if holds else 'fails'}: {gate.reason(value, of_parent)}"
        for holds, (gate, value, of_parent) in zip(held, figures, strict=True)
    ]
    return Verdict(blessed=all(held), reasons=tuple(reasons))


def require_gates(gates: Sequence[Gate], metrics: Iterable[str]) -> None:
    """Checks that there are gates and that every one can be judged.

    Args:
      gates: The gates.
      metrics: Names of the metrics that are computed besides `AGREEMENT` and `EXAMPLE_COUNT`, which always are.

    Raises:
      ValueError: If there is no gate, or one is on a metric that is not computed.
    """
    own = sorted({AGREEMENT, EXAMPLE_COUNT} & set(metrics))
    if own:
        raise ValueError(f"metrics named {', '.join(own)}: these are always computed; choose other names")
    names = [*metrics, AGREEMENT, EXAMPLE_COUNT]
    unknown = sorted({gate.metric for gate in gates} - set(names))
    if not gates:
        raise ValueError("no gates: a model without a bound to keep would always be blessed; give at least one")
    if unknown:
        raise ValueError(f"gates on metrics that are not computed: {', '.join(unknown)}; there are {', '.join(names)}")
    slots = collections.Counter((gate.metric, "change" if gate.is_relative else gate.kind) for gate in gates)
    twice = sorted({metric for (metric, _), count in slots.items() if count > 1})
    if twice:
        raise ValueError(
            f"several gates of one kind on {', '.join(twice)}; give each metric at most one lower bound, one upper"
            " bound and one of drop and rise"
        )
