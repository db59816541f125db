"""Gates: everything that decides whether an integer model is blessed, as one value that can be written down."""

import dataclasses
import datetime
import json
from collections.abc import Sequence

from components.evaluation.gate import BEFORE_TRAINING, FACTS, PAIRED, Gate
from components.evaluation.measurements import FLOAT
from components.quantization.agreement import AGREEMENT, EXAMPLE_COUNT


def today() -> datetime.date:
    """Returns the day by UTC, by which overrides count."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def parse_day(text: str) -> datetime.date:
    """Reads a day, such as 2026-12-31.

    Raises:
      ValueError: If it is none.
    """
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise ValueError(f"got {text!r}, expected a day such as 2026-12-31") from error


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """Lets a model pass that does not keep one gate, for a while.

    Attributes:
      gate: The gate, as it is written.
      because: Why; it is kept with the blessing.
      until: The last day, by UTC, on which it counts.
      by: Who says so; kept like the reason, empty if unknown.
    """

    gate: str
    because: str
    until: datetime.date
    by: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError without a reason, or if the gate is none."""
        object.__setattr__(self, "gate", str(Gate.parse(self.gate)))
        if not self.because.strip():
            raise ValueError(f"override of '{self.gate}': no reason; say why the model may pass")

    def is_current(self, day: datetime.date) -> bool:
        """Whether it counts on a day."""
        return day <= self.until


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """What a model must keep to be blessed.

    Attributes:
      bounds: The gates; a model must keep every one.
      bless_ungated: Whether a model that no gate was held against is blessed.
      overrides: Gates that a model need not keep for a while.
      require_compiled: Whether the file must be made by the target's own compiler; an analysis is none.
    """

    bounds: tuple[Gate, ...] = ()
    bless_ungated: bool = False
    overrides: tuple[Override, ...] = ()
    require_compiled: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for gates that say the same, different confidences, and overrides of what there is not."""
        slots = [gate.slot for gate in self.bounds]
        twice = sorted({str(gate) for gate in self.bounds if slots.count(gate.slot) > 1})
        wrong = []
        if twice:
            wrong.append(
                f"several gates of one kind on one figure: '{twice[0]}' and others; give each at most one lower bound,"
                " one upper bound and one of drop and rise"
            )
        confidences = sorted({gate.confidence for gate in self.bounds if gate.confidence})
        if len(confidences) > 1:
            wrong.append(f"gates at {', '.join(f'{100 * one:g}%' for one in confidences)}; choose one confidence")
        names = [str(gate) for gate in self.bounds]
        overridden = [override.gate for override in self.overrides]
        unknown = [name for name in overridden if name not in names]
        if unknown:
            there = "; ".join(names) or "none"
            wrong.append(f"override of '{unknown[0]}', which is no gate of this pipeline; there are: {there}")
        if len(set(overridden)) < len(overridden):
            wrong.append("a gate is overridden twice")
        if wrong:
            raise ValueError("; ".join(wrong))

    @classmethod
    def of(cls, *texts: str) -> "Gates":
        """Returns gates as they are written, without anything else.

        >>> Gates.of("accuracy >= 0.97").bounds[0].bound
        0.97
        """
        return cls(bounds=tuple(map(Gate.parse, texts)))

    @property
    def confidence(self) -> float:
        """The confidence at which intervals are wanted, 0 to 1; 0.95 unless a gate says otherwise."""
        return next((gate.confidence for gate in self.bounds if gate.confidence), 0.95)

    @property
    def models(self) -> frozenset[str]:
        """Names of the models that the integer model is held against."""
        return frozenset(gate.against for gate in self.bounds if gate.compares)

    @property
    def metrics(self) -> frozenset[str]:
        """Names of all that is bounded; latency, for one, is worth measuring only if it is among them."""
        return frozenset(gate.metric for gate in self.bounds)

    def override(self, gate: Gate) -> Override | None:
        """Returns the override of a gate, if there is one, current or not."""
        return next((one for one in self.overrides if one.gate == str(gate)), None)

    def updated(self, texts: Sequence[str]) -> "Gates":
        """Returns a copy with gates added; one of the same figure and kind is replaced.

        Raises:
          ValueError: If a text is no gate.
        """
        added = [*self.bounds, *map(Gate.parse, texts)]
        return dataclasses.replace(self, bounds=tuple({(gate.kind, *gate.slot): gate for gate in added}.values()))

    def before_evaluation(self) -> "Gates":
        """Returns what of the gates can be held against the metrics of a training loop over all examples.

        Without what needs a slice, the last blessed model, paired predictions or the file. A gate at a confidence
        becomes one on the difference itself: a model that fails that one fails the stricter gate, too.
        """
        kept: dict[tuple[str, ...], Gate] = {}
        for gate in self.bounds:
            paired = gate.metric in PAIRED and gate.metric != AGREEMENT
            if gate.slice or gate.output or paired or gate.metric in FACTS or gate.against != FLOAT:
                continue
            plain = dataclasses.replace(gate, confidence=0.0)
            if plain.slot not in kept or plain.bound < kept[plain.slot].bound:  # only a drop has a confidence
                kept[plain.slot] = plain
        return Gates(bounds=tuple(kept.values()))

    def before_training(self) -> "Gates":
        """Returns what of the gates, and of their overrides, can be held against an untrained model."""
        kept = tuple(gate for gate in self.bounds if gate.metric in BEFORE_TRAINING)
        names = [str(gate) for gate in kept]
        return Gates(bounds=kept, overrides=tuple(one for one in self.overrides if one.gate in names))

    def require_current(self, day: datetime.date) -> None:
        """Raises ValueError, where something is about to run, if an override does not count on a day; lists all."""
        expired = [one for one in self.overrides if not one.is_current(day)]
        if expired:
            raise ValueError(
                "; ".join(f"override of '{one.gate}' expired on {one.until}; remove or renew it" for one in expired)
            )

    def overrides_json(self) -> str:
        """Returns the overrides as a JSON list; "" if there are none."""
        return json.dumps(self._overrides()) if self.overrides else ""

    def _overrides(self) -> list[dict[str, str]]:
        return [{**dataclasses.asdict(one), "until": one.until.isoformat()} for one in self.overrides]

    def to_json(self) -> str:
        """Returns the gates as JSON, for `from_json`."""
        bounds = [str(gate) for gate in self.bounds]
        return json.dumps(
            {
                "bounds": bounds,
                "bless_ungated": self.bless_ungated,
                "overrides": self._overrides(),
                "require_compiled": self.require_compiled,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Gates":
        """Reads what `to_json` wrote."""
        fields = json.loads(text)
        overrides = [Override(**{**one, "until": parse_day(one["until"])}) for one in fields["overrides"]]
        return cls(
            bounds=tuple(map(Gate.parse, fields["bounds"])),
            bless_ungated=fields["bless_ungated"],
            overrides=tuple(overrides),
            require_compiled=fields.get("require_compiled", False),  # written by earlier versions without it
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measurable:
    """What an evaluator measures, known before anything runs.

    Attributes:
      metrics: Names of the user's metrics.
      slices: Features, or groups of features, by which the metrics are sliced.
      models: Names of the models that the integer model is compared with.
      outputs: Names of the outputs, "" for a model's only one; None if they are known only when the model is there.
      paired: Whether paired figures beyond agreement are measured.
      facts: Names of the facts about the file that are measured.
    """

    metrics: tuple[str, ...]
    slices: tuple[tuple[str, ...], ...] = ()
    models: tuple[str, ...] = (FLOAT,)
    outputs: tuple[str, ...] | None = ("",)
    paired: bool = False
    facts: tuple[str, ...] = tuple(FACTS)

    def require(self, gates: Gates) -> None:
        """Checks that every gate can be judged.

        Raises:
          ValueError: If a gate is on something that is not measured; lists all.
        """
        taken = sorted({AGREEMENT, EXAMPLE_COUNT, *PAIRED, *FACTS} & set(self.metrics))
        wrong = [f"metrics named {', '.join(taken)}: these are names of other figures; choose others"] if taken else []
        names = [*self.metrics, AGREEMENT, EXAMPLE_COUNT, *self.facts, *(PAIRED if self.paired else ())]
        unknown = sorted(gates.metrics - set(names))
        if unknown:
            there = ", ".join(dict.fromkeys(names))
            wrong.append(f"gates on metrics that are not computed: {', '.join(unknown)}; there are {there}")
        for gate in gates.bounds:
            wrong += [f"gate '{gate}': {reason}" for reason in self._lacks(gate)]
        if wrong:
            raise ValueError("; ".join(wrong))

    def _lacks(self, gate: Gate) -> list[str]:
        lacks = []
        features = sorted(feature for feature, _ in gate.slice)
        if features and features not in [sorted(group) for group in self.slices]:
            groups = ", ".join(" and ".join(group) for group in self.slices) or "none"
            lacks.append(f"no slices by {' and '.join(features)}; there are {groups}")
        if gate.compares and gate.against not in self.models:
            lacks.append(f"model {gate.against!r} is not evaluated; there are {', '.join(self.models)}")
        if self.outputs is not None and gate.metric not in FACTS and gate.output not in self.outputs:
            there = ", ".join(filter(None, self.outputs)) or "one, which needs no name"
            lacks.append(f"no output {gate.output!r}; there are {there}")
        if gate.metric == AGREEMENT and gate.against != FLOAT and not self.paired:
            lacks.append(f"agreement with {gate.against} is not measured")
        if gate.confidence and not self.paired:
            lacks.append("confidence intervals are not measured")
        return lacks
