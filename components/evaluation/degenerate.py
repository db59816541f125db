"""Outputs that say nothing of their input: constant, one class for all, saturated, no numbers.

Such a model can keep a bound on the wrong metric, and a collapse in quantization looks like this.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.evaluation.decisions import Kind, decide, decisions_of_labels, kind_of

Limits = tuple[float, float]
NOT_NUMBERS = "not a number"

# A value at an end of its range is saturated if the float model's lies farther away than this share of the range ...
_FAR = 1 / 4
# ... and an output if more than this share of its values is; of classes, of the scores that decided.
_MOST = 0.5
# A model is right in one class alone if outside of some class it gets this share, or less, of what the float model gets
# right there, which must be so much.
_FEW = 1 / 20
_ENOUGH = 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OutputSums:
    """What tells a degenerate output. Those of two parts of the examples add up to that of both.

    Attributes:
      examples: How many.
      lowest: The lowest value of each element of the output, flat.
      highest: The highest.
      classes: Lowest and highest class of each decision, (2, decisions); (2, 0) without classes.
      labels: Lowest and highest label of each decision.
      right: Right decisions of each class, by this model and by the float one, (2, classes); (2, 0) without classes.
      saturated: Values at an end of the range, far from those of the float model.
      values: Values that could be saturated; 0 if the range is not known.
      not_numbers: Values that are infinite or not a number.
    """

    examples: int
    lowest: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    saturated: int
    values: int
    not_numbers: int

    @classmethod
    def of(
        cls,
        labels: npt.NDArray[Any],
        scores: npt.NDArray[Any],
        float_scores: npt.NDArray[Any] | None = None,
        limits: Limits | None = None,
        declared: Kind | None = None,
    ) -> "OutputSums":
        """Returns the sums of a batch.

        Args:
          labels: Of shape (examples,) or (examples, ...).
          scores: Of shape (examples, ...).
          float_scores: Those of the float model, of the same shape.
          limits: The lowest and the highest value that the output's integers stand for.
          declared: As of `decisions.kind_of`.
        """
        flat = scores.reshape(len(scores), -1).astype(np.float64)
        kind = kind_of(labels, scores, declared)
        classes = known = right = np.zeros((2, 0), np.int64)
        if kind != "values":
            decided = decide(scores, kind).classes
            true = decisions_of_labels(labels, scores, kind)
            classes, known = (np.stack([of.min(axis=0), of.max(axis=0)]) for of in (decided, true))
            if float_scores is not None:
                count = scores.shape[-1] if kind == "classes" and scores.ndim > 1 else 2
                both = decided, decide(float_scores, kind).classes
                right = np.stack([np.bincount(true[of == true], minlength=max(count, 2)) for of in both])
        saturated = values = 0
        if limits is not None and float_scores is not None:
            given, wanted = flat, float_scores.reshape(flat.shape).astype(np.float64)
            if kind == "classes" and scores.ndim > 1 and scores.shape[-1] > 1:
                given, wanted = (_of_decisions(of, decided, scores.shape[-1]) for of in (given, wanted))
            ends = (given <= limits[0]) | (given >= limits[1])
            far = np.abs(given - wanted) > _FAR * (limits[1] - limits[0])
            saturated, values = int((ends & far).sum()), given.size
        return cls(
            examples=len(flat),
            lowest=flat.min(axis=0),
            highest=flat.max(axis=0),
            classes=classes,
            labels=known,
            right=right,
            saturated=saturated,
            values=values,
            not_numbers=int((~np.isfinite(flat)).sum()),
        )

    def __add__(self, other: "OutputSums") -> "OutputSums":
        return OutputSums(
            examples=self.examples + other.examples,
            lowest=np.minimum(self.lowest, other.lowest),
            highest=np.maximum(self.highest, other.highest),
            classes=_span(self.classes, other.classes),
            labels=_span(self.labels, other.labels),
            right=self.right + other.right,
            saturated=self.saturated + other.saturated,
            values=self.values + other.values,
            not_numbers=self.not_numbers + other.not_numbers,
        )

    def degenerate(self) -> tuple[str, ...]:
        """Says what is degenerate: some of "constant", "one class", "saturated", "not a number".

        One class for all, in every decision, is only degenerate where there are examples of several. Wrong decisions
        for others change nothing, as long as there are enough others that the float model gets right.
        """
        several = self.examples > 1
        one_class = np.array_equal(*self.classes) and not np.array_equal(*self.labels)
        found = {
            "constant": several and np.array_equal(self.lowest, self.highest),
            "one class": several and (one_class or self._is_right_in_one_class()),
            "saturated": self.saturated > _MOST * self.values,
            NOT_NUMBERS: self.not_numbers > 0,
        }
        return tuple(name for name, holds in found.items() if holds)

    def _is_right_in_one_class(self) -> bool:
        if not self.right.size:
            return False
        ours, others = (of.sum() - of for of in self.right)  # outside of each class
        return bool(((others >= _ENOUGH) & (ours <= _FEW * others)).any())


def _span(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.stack([np.minimum(first[0], second[0]), np.maximum(first[1], second[1])])


def _of_decisions(
    scores: npt.NDArray[np.float64], decided: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    """The scores of what was decided, (examples, decisions), of flat scores."""
    by_decision = scores.reshape(len(scores), -1, classes)
    chosen: npt.NDArray[np.float64] = np.take_along_axis(by_decision, decided[..., None], axis=-1)[..., 0]
    return chosen
