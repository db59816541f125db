"""What the gates say of a model, with a reason for everything that was looked at."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Literal

from components.evaluation.measurements import Slice

Code = Literal[
    "holds",
    "value",
    "change",
    "confidence",
    "not_a_number",
    "not_measured",
    "missing_slice",
    "too_few_examples",
    "degenerate",
    "unclear_labels",
    "nothing_gated",
    "blessed_ungated",
    "not_compiled",
    "no_baseline",
    "drift",
    "foreign_baseline",
    "incompatible_baseline",
    "unusable_baseline",
    "overridden",
    "override_expired",
    "incomplete",
    "unreadable",
    "audit",
    "signature",
    "refused",
    "crashed",
    "golden",
    "kernels",
    "nondeterministic",
    "budget",
]
CODES: dict[Code, str] = {
    "holds": "the bound is kept",
    "value": "the integer model's value is beyond the bound",
    "change": "the drop or rise is beyond the bound",
    "confidence": "the difference may, at that confidence, be beyond the bound",
    "not_a_number": "the figure is not a number",
    "not_measured": "the figure is not there",
    "missing_slice": "there are no examples of the slice",
    "too_few_examples": "so few examples cannot show the bound at that confidence",
    "degenerate": "an output of the integer model is constant, right in one class alone, saturated or not a number",
    "unclear_labels": "labels may be meant otherwise than they were taken, scores are no probabilities, or an accuracy"
    " counts other decisions than are made",
    "nothing_gated": "no gate was held against the model",
    "blessed_ungated": "no gate was held against the model, and it is blessed since `bless_ungated` is set",
    "not_compiled": "the target's own compiler did not make the file, and `require_compiled` is set",
    "no_baseline": "there is no last blessed model yet, or none with statistics for drift, so the gate was skipped",
    "drift": "the examples are farther than the bound from those of the last blessed model",
    "foreign_baseline": "the last blessed model that was given is of another pipeline, task or target",
    "incompatible_baseline": "the last blessed model has other inputs, outputs or labels",
    "unusable_baseline": "the last blessed model is not there, or it or its own transform cannot be loaded or run",
    "overridden": "the gate is not kept, and an override lets the model pass",
    "override_expired": "the gate is not kept, and its override counts no longer",
    "incomplete": "the model has no whole contract or golden vectors, or they are of another file",
    "unreadable": "the file is no TFLite model",
    "audit": "the file breaks a rule of the audit",
    "signature": "inputs or outputs are not those of the contract, or of the float parent",
    "refused": "an interpreter refuses the model",
    "crashed": "the process that ran the model crashed, or did not end in time",
    "golden": "the reference kernels give other integers than when the model was converted",
    "kernels": "kernels differ by more than was allowed, or as much as outputs of other examples do",
    "nondeterministic": "the model gave other bits when it ran again",
    "budget": "the file or its arena is larger than was allowed",
}
"""What each code of a reason means."""
PASSING: frozenset[Code] = frozenset({"holds", "blessed_ungated", "no_baseline", "overridden"})
"""The codes that leave a model to be blessed; each of the others refuses it."""


_HOLDS = "holds: "
SKIPPED = "skipped: "
"""How the texts of reasons of code "no_baseline" begin."""


def holding(text: str) -> str:
    """Returns the text of a reason of code "holds"."""
    return f"{_HOLDS}{text}"


def without_held(texts: Iterable[str]) -> list[str]:
    """Returns the texts of reasons that say more than that something holds."""
    return [text for text in texts if not text.startswith(_HOLDS)]


def refusing(texts: Iterable[str]) -> list[str]:
    """Returns the texts of reasons that say more than that something holds, or was skipped for want of a baseline."""
    return [text for text in without_held(texts) if not text.startswith(SKIPPED)]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a model is blessed or not, in one respect.

    Attributes:
      code: One of `CODES`.
      gate: The gate, as it is written, or the check; "" where there is neither.
      got: What was held against the limit: a value, drop or rise, or a name; None if there is none, or no number.
      limit: The gate's bound, or its names; None where there is none.
      slice: The examples; () for all.
      output: Name of the output; "" for a model's only one.
      examples: How many examples there were; 0 where there is no saying.
      text: All of it, for people.
    """

    code: Code
    gate: str = ""
    got: float | str | None = None
    limit: float | str | None = None
    slice: Slice = ()
    output: str = ""
    examples: int = 0
    text: str

    @property
    def refuses(self) -> bool:
        """Whether the model is not blessed for it."""
        return self.code not in PASSING


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gates say of a model.

    Attributes:
      reasons: Of every gate and slice, in order; then of the outputs, and of there being no gates.
    """

    reasons: tuple[Reason, ...]

    @property
    def blessed(self) -> bool:
        """Whether nothing refuses the model; never without a reason to bless it."""
        return bool(self.reasons) and not any(reason.refuses for reason in self.reasons)

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes that occur, sorted."""
        return tuple(sorted({reason.code for reason in self.reasons}))

    @property
    def texts(self) -> tuple[str, ...]:
        """The reasons for people; of a gate that holds in several slices, only that with the least margin."""
        held: dict[str, list[Reason]] = {}
        for reason in self.reasons:
            if reason.code == "holds":
                held.setdefault(reason.gate, []).append(reason)
        closest = {gate: min(reasons, key=_margin) for gate, reasons in held.items()}
        texts = []
        for reason in self.reasons:
            if reason.code != "holds":
                texts.append(reason.text)
            elif reason is closest[reason.gate]:
                others = len(held[reason.gate]) - 1
                texts.append(reason.text + (f", and in {others} other slices" if others else ""))
        return tuple(texts)

    def to_json(self) -> str:
        """Returns the verdict as indented JSON."""
        reasons = [dataclasses.asdict(reason) for reason in self.reasons]
        return json.dumps({"blessed": self.blessed, "reasons": reasons}, indent=2, allow_nan=False) + "\n"


def _margin(reason: Reason) -> float:
    numbers = isinstance(reason.got, float) and isinstance(reason.limit, float)
    return abs(reason.got - reason.limit) if numbers else 0.0  # type: ignore[operator]
