"""A gate: one bound that an integer model must keep, and how it is written."""

import dataclasses
import decimal
import math
import re
import statistics
from typing import Literal

from components.evaluation.input_ranges import CLIPPED_INPUTS
from components.evaluation.measurements import FLOAT, INTEGER, MODELS, Slice
from components.quantization.agreement import AGREEMENT

Kind = Literal["at_least", "at_most", "drop_at_most", "rise_at_most", "one_of"]

ANY_VALUE = "*"
"""As the value of a feature: every slice by that feature."""
ACCURACY = "accuracy"
LATENCY = "latency_ms"
MACS_ON_TARGET = "macs_on_target"
FIRST_CPU_OP = "first_cpu_op"
STREAMED_BYTES = "streamed_bytes"
TARGET_SUBGRAPHS = "target_subgraphs"
TARGET_BASIS = "target_basis"
BASES = {
    MACS_ON_TARGET: TARGET_BASIS,
    FIRST_CPU_OP: TARGET_BASIS,
    STREAMED_BYTES: "streamed_basis",
    TARGET_SUBGRAPHS: "subgraphs_basis",
}
"""Facts of a model on its target by the fact that says what they are by: the target's compiler, or its rules."""
MODEL_BYTES = "model_bytes"
DRIFT = "drift"
"""Fact: how far the examples have drifted from those of the last blessed model; "of" a feature, or the greatest."""
COMPILED = "compiled"
"""Fact of a model that `Gates.require_compiled` asks for: 1 if the target's own compiler made the file, else 0."""
NO_OP = "none"
"""Name of the first op on the CPU where all are on the target."""

# What is known of a metric that is not the user's: the kinds in which a worse model never keeps a gate more easily.
FACTS: dict[str, tuple[Kind, ...]] = {
    MODEL_BYTES: ("at_most",),
    "arena_bytes": ("at_most",),
    CLIPPED_INPUTS: ("at_most",),
    DRIFT: ("at_most",),
    LATENCY: ("at_most",),
    MACS_ON_TARGET: ("at_least",),
    FIRST_CPU_OP: ("one_of",),
    STREAMED_BYTES: ("at_most",),
    TARGET_SUBGRAPHS: ("at_most",),
}
BEFORE_TRAINING = (MODEL_BYTES, MACS_ON_TARGET, FIRST_CPU_OP, TARGET_SUBGRAPHS)
"""Of the facts those that an untrained model shows: its ops and shapes are the trained one's."""
PAIRED: dict[str, tuple[Kind, ...]] = {
    AGREEMENT: ("at_least",),
    "better": ("at_least",),
    "worse": ("at_most",),
    "ties": ("at_most", "rise_at_most"),
    "calibration_error": ("at_most", "rise_at_most"),
}
COUNTED = ("better", "worse", "ties")
"""Of the paired figures those that count examples by the class that is predicted."""
# Of these a single value is already one against another model.
_OF_TWO_MODELS = (AGREEMENT, "better", "worse")

_KINDS: dict[tuple[str, str], Kind] = {
    ("", ">="): "at_least",
    ("", "<="): "at_most",
    ("drop", "<="): "drop_at_most",
    ("rise", "<="): "rise_at_most",
}
_WORDS = {kind: words for words, kind in _KINDS.items()}
_PATTERN = re.compile(
    r"""\s*(?P<metric>\w+)
    (?:\s+of\s+(?P<output>[^\s\[\]<>=]+))?
    \s*(?:\[(?P<slice>[^\[\]]*)\])?
    \s*(?:\b(?P<change>drop|rise)\b)?
    \s*(?:\bvs\s+(?P<against>\w+))?
    \s*(?P<relation>>=|<=)\s*(?P<bound>[^\s%]+)
    (?:\s+at\s+(?P<percent>[\d.]+)\s*%)?\s*""",
    re.VERBOSE,
)
_CHOICE_PATTERN = re.compile(rf"\s*{FIRST_CPU_OP}\s+in\s+(?P<choices>[\w\s,./:-]+)")
_FORMS = (
    "write 'metric >= x', 'metric <= x', 'metric drop <= x' or 'metric rise <= x', perhaps with an output, a slice,"
    " another model and a confidence, as in 'accuracy of scores[label=3] drop vs last_blessed <= x at 95%';"
    f" or '{FIRST_CPU_OP} in {NO_OP}, OP'"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One bound on one figure of the integer model.

    Attributes:
      metric: Name of a metric, of a paired figure (`PAIRED`), or of a fact about the file (`FACTS`).
      kind: "at_least" and "at_most" bound the integer model's value; "drop_at_most" and "rise_at_most" bound how far it
        lies below or above another model's; "one_of" wants one of some names.
      bound: The bound, in the metric's unit.
      output: Name of the model's output; "" for a model's only one. Of drift, name of the feature; "" for all.
      slice: The examples: features and their values, `ANY_VALUE` for every value; () for all examples.
      against: The other model, where the gate needs one.
      confidence: With it, 0 to 1, not the difference itself but the worse bound of its confidence interval must keep
        the bound; 0 for the difference itself.
      choices: The names, of kind "one_of".
    """

    metric: str
    kind: Kind
    bound: float = 0.0
    output: str = ""
    slice: Slice = ()
    against: str = FLOAT
    confidence: float = 0.0
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for a gate that has no meaning."""
        wrong = [*self._wrong_kind(), *self._wrong_place(), *self._wrong_confidence()]
        if wrong:
            raise ValueError(f"gate '{self}': {'; '.join(wrong)}")

    def __str__(self) -> str:
        """The gate as `parse` reads it."""
        if self.kind == "one_of":
            return f"{self.metric} in {', '.join(self.choices)}"
        change, relation = _WORDS[self.kind]
        where = f" of {self.output}" if self.output else ""
        cut = f"[{slice_text(self.slice)}]" if self.slice else ""
        against = f" vs {self.against}" if self.against != FLOAT else ""
        confidence = f" at {_percent(self.confidence)}%" if self.confidence else ""
        change = f" {change}" if change else ""
        return f"{self.metric}{where}{cut}{change}{against} {relation} {_exactly(self.bound)}{confidence}"

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Reads a gate.

        Raises:
          ValueError: If the text is no gate, or one without a meaning.

        >>> Gate.parse("accuracy[label=3] >= 0.97").slice
        (('label', '3'),)
        >>> str(Gate.parse("accuracy drop vs last_blessed <= 0.01 at 95 %"))
        'accuracy drop vs last_blessed <= 0.01 at 95%'
        """
        choice = _CHOICE_PATTERN.fullmatch(text)
        if choice:
            names = tuple(re.split(r"[\s,]+", choice["choices"].strip(" ,")))
            return cls(metric=FIRST_CPU_OP, kind="one_of", choices=names)
        match = _PATTERN.fullmatch(text)
        kind = _KINDS.get((match["change"] or "", match["relation"])) if match else None
        bound = _number(match["bound"]) if match else math.nan
        confidence = _share(match["percent"] or "0") if match else math.nan
        cut = _parse_slice(match["slice"]) if match else None
        if match is None or kind is None or cut is None or not math.isfinite(bound + confidence):
            raise ValueError(f"not a gate: {text!r}; {_FORMS}")
        if match["percent"] and not confidence:
            raise ValueError(f"gate {text!r}: got a confidence of 0 %, expected 50 or more and less than 100")
        return cls(
            metric=match["metric"],
            kind=kind,
            bound=bound,
            output=match["output"] or "",
            slice=cut,
            against=match["against"] or FLOAT,
            confidence=confidence,
        )

    @property
    def is_relative(self) -> bool:
        """Whether it bounds a change from another model."""
        return self.kind in ("drop_at_most", "rise_at_most")

    @property
    def compares(self) -> bool:
        """Whether it needs another model."""
        return self.is_relative or self.metric in _OF_TWO_MODELS

    @property
    def slot(self) -> tuple[str, ...]:
        """What there may be only one gate for: two bounds of one kind on one figure say no more than one."""
        kind = "change" if self.is_relative else self.kind
        return self.metric, kind, self.output, slice_text(sorted_slice(self.slice)), self.against, str(self.confidence)

    def holds(self, got: float) -> bool:
        """Whether a value, drop or rise keeps the bound; never for what is no number.

        Figures are of double precision. A weighted mean, or a difference of two numbers that have no exact form in
        binary, as 0.98 - 0.97, may all the same miss the bound by 1e-12.
        """
        slack = 1e-12 * (1.0 if self.is_relative else abs(self.bound))
        return got >= self.bound - slack if self.kind == "at_least" else got <= self.bound + slack

    def needed_examples(self) -> int:
        """How many examples a confidence needs at least.

        Even if none of n examples flips, the interval reaches down to -z^2 / (n + z^2), as Tango's does (see
        `intervals.score_low`), where z is the normal distribution's quantile for the confidence.

        >>> Gate.parse("accuracy drop <= 0.01 at 95%").needed_examples()
        381
        """
        if not self.confidence:
            return 0
        z = statistics.NormalDist().inv_cdf((1 + self.confidence) / 2)
        return math.ceil(z**2 * (1 / self.bound - 1))

    def _wrong_kind(self) -> list[str]:
        known = {**FACTS, **PAIRED}.get(self.metric)
        wrong = []
        if known is not None and self.kind not in known:
            forms = " or ".join(f"'{' '.join([self.metric, *_form(kind)])}'" for kind in known)
            wrong.append(f"a worse model would keep it more easily, expected {forms}")
        if (self.kind == "one_of") != bool(self.choices) or (self.kind == "one_of" and self.metric != FIRST_CPU_OP):
            wrong.append(f"names are for {FIRST_CPU_OP} alone, at least one")
        if not math.isfinite(self.bound):
            wrong.append("the bound is no number")
        if self.metric == ACCURACY and self.is_relative and self.bound >= 1:
            wrong.append("every model keeps it: accuracies are shares, of which one percent is 0.01")
        if self.metric == MACS_ON_TARGET and self.bound > 1:
            wrong.append("no model keeps it: it is a share, of which 95 percent is 0.95")
        if self.metric == DRIFT and not 0 < self.bound < 1:
            wrong.append("distances are from 0 to 1, expected a bound between them")
        return wrong

    def _wrong_place(self) -> list[str]:
        wrong = []
        others = [model for model in MODELS if model != INTEGER]
        if self.against not in others:
            wrong.append(f"vs {self.against!r}, expected one of {', '.join(others)}")
        elif self.against != FLOAT and not self.compares:
            wrong.append("'vs' without 'drop' or 'rise': it compares nothing")
        if self.metric in FACTS and (self.slice or (self.output and self.metric != DRIFT)):
            wrong.append("it is of the whole file, without an output or a slice")
        if len({feature for feature, _ in self.slice}) < len(self.slice):
            wrong.append("a feature twice in one slice")
        if _parse_slice(slice_text(self.slice) if self.slice else None) != self.slice:
            wrong.append(
                f"features and values of a slice cannot have ',', '[', ']' or space at an end; use {ANY_VALUE}"
            )
        return wrong

    def _wrong_confidence(self) -> list[str]:
        if not self.confidence:
            return []
        wrong = []
        if (self.metric, self.kind) != (ACCURACY, "drop_at_most"):
            wrong.append(f"a confidence is for '{ACCURACY} drop' alone")
        if not 0.5 <= self.confidence < 1:
            wrong.append(f"got a confidence of {100 * self.confidence:.12g} %, expected 50 or more and less than 100")
        if not 0 < self.bound < 1:
            wrong.append("with a confidence the bound must lie between 0 and 1: no examples show that nothing was lost")
        return wrong


def slice_text(cut: Slice) -> str:
    """Returns a slice as a gate has it.

    >>> slice_text((("label", "3"), ("country", "*")))
    'label=3, country=*'
    """
    return ", ".join(f"{feature}={value}" for feature, value in cut)


def sorted_slice(cut: Slice) -> Slice:
    """Returns a slice with its features in order."""
    return tuple(sorted(cut))


def _exactly(number: float) -> str:
    """The shortest text that is read as the same number.

    >>> _exactly(300000.0), _exactly(0.01), _exactly(2 / 3)
    ('300000', '0.01', '0.6666666666666666')
    """
    short = f"{number:.12g}"
    return short if float(short) == number else repr(float(number))


def _form(kind: Kind) -> list[str]:
    return ["in", f"{NO_OP}, OP"] if kind == "one_of" else [word for word in (*_WORDS[kind], "x") if word]


def _parse_slice(text: str | None) -> Slice | None:
    """The slice; None if it is none."""
    if text is None:
        return ()
    if set(text) & set("[]"):
        return None
    pairs = [tuple(part.strip() for part in item.split("=", 1)) for item in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        return None
    return tuple((pair[0], pair[1]) for pair in pairs)


def _percent(confidence: float) -> str:
    """A confidence as a percentage, in decimal, so that reading it gives it back."""
    return f"{(decimal.Decimal(repr(confidence)) * 100).normalize():f}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _share(percentage: str) -> float:
    try:
        return float(decimal.Decimal(percentage) / 100)
    except decimal.InvalidOperation:
        return math.nan
