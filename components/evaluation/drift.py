"""How far the examples of a run have drifted from those of the last blessed model, and gates on that."""

import dataclasses
import json
from collections.abc import Iterator, Mapping

from components.evaluation.gate import DRIFT, Gate
from components.evaluation.gates import Gates
from components.evaluation.verdict import SKIPPED, Reason, holding

NO_BASELINE, UNMEASURED = "no_drift_baseline", "unmeasured_drift"
"""Facts that say why no distance, or not every one, was measured."""
INPUTS, CALIBRATION, RANGE = "inputs/", "calibration/", "range/"
"""How names begin of what is compared as the model takes it: with its training, what calibrated it, its integers."""
_NOT_OF_TRAINING = (CALIBRATION, RANGE)
_FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """How far the values of one feature are from those of the baseline.

    Attributes:
      feature: A raw feature; or, with `INPUTS` or `CALIBRATION` before it, an input of the model, or "/mean" or "/std"
        of its values in each example; or, with `RANGE` before it, an input.
      against: The baseline's "training examples", "calibration examples" or "input range".
      measure: "Jensen-Shannon divergence" of numbers, "L-infinity" of categories, "share of values beyond" a range.
      distance: From 0, the same, to 1.
    """

    feature: str
    against: str
    measure: str
    distance: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """What was measured of a run's examples.

    Attributes:
      distances: By feature.
      no_baseline: Why there is nothing to compare with; "" if there is.
      unmeasured: Why not everything could be compared; "" if it could.
    """

    distances: tuple[Distance, ...] = ()
    no_baseline: str = ""
    unmeasured: str = ""

    def facts(self) -> dict[str, float | str]:
        """Returns the figures by the names under which they are kept for good.

        "drift" is the greatest distance from training examples, "drift_FEATURE" that of one feature.

        >>> far = Distance(feature="x", against="training examples", measure="L-infinity", distance=0.5)
        >>> Drift(distances=(far,)).facts()
        {'drift_x': 0.5, 'drift': 0.5}
        """
        found: dict[str, float | str] = {f"{DRIFT}_{one.feature}": one.distance for one in self.distances}
        trained = [one.distance for one in self.distances if not one.feature.startswith(_NOT_OF_TRAINING)]
        found |= {DRIFT: max(trained)} if trained else {}
        further = {NO_BASELINE: self.no_baseline, UNMEASURED: self.unmeasured}
        return found | {name: text for name, text in further.items() if text}

    def to_json(self) -> str:
        """Returns all of it as indented JSON."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Drift":
        """Reads what `to_json` wrote."""
        read = json.loads(text)
        return cls(
            distances=tuple(Distance(**one) for one in read["distances"]),
            no_baseline=read["no_baseline"],
            unmeasured=read["unmeasured"],
        )


def of_drift(gates: Gates) -> tuple[Gate, ...]:
    """Returns the gates on drift."""
    return tuple(gate for gate in gates.bounds if gate.metric == DRIFT)


def drift_reasons(gates: Gates, facts: Mapping[str, float | str]) -> Iterator[tuple[Gate, Reason]]:
    """Holds the gates on drift against facts, as `Drift.facts` returns them; overrides are not looked at."""
    for gate in of_drift(gates):
        yield gate, _reason(gate, facts)


def _reason(gate: Gate, facts: Mapping[str, float | str]) -> Reason:
    written, name = str(gate), "_".join(filter(None, (DRIFT, gate.output)))
    got, what = facts.get(name), f"drift of {gate.output}" if gate.output else DRIFT
    if facts.get(NO_BASELINE):
        text = f"{SKIPPED}{written} ({facts[NO_BASELINE]})"
        return Reason(code="no_baseline", gate=written, limit=gate.bound, output=gate.output, text=text)
    incomplete = facts.get(UNMEASURED) if not gate.output else None
    if not isinstance(got, float) or incomplete:
        there = sorted(one.removeprefix(f"{DRIFT}_") for one in facts if one.startswith(f"{DRIFT}_"))
        why = facts.get(UNMEASURED) or f"there are {', '.join(there) or 'none'}"
        text = f"fails: {written} ({what} is not measured; {why})"
        return Reason(code="not_measured", gate=written, limit=gate.bound, output=gate.output, text=text)
    of = "" if gate.output else f", of {_worst(facts, got)}"
    figures = f"{written} ({what} is {got:.4f}{of})"
    holds = gate.holds(got)
    return Reason(
        code="holds" if holds else "drift",
        gate=written,
        got=got,
        limit=gate.bound,
        output=gate.output,
        text=holding(figures) if holds else f"fails: {figures}",
    )


def _worst(facts: Mapping[str, float | str], distance: float) -> str:
    names = (
        name.removeprefix(f"{DRIFT}_") for name in facts if name.startswith(f"{DRIFT}_") and facts[name] == distance
    )
    return next(name for name in names if not name.startswith(_NOT_OF_TRAINING))
