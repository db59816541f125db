"""Outputs that say nothing of their input: constant, one class for all, saturated, no numbers.

Such a model can keep a bound on the wrong metric, and a collapse in quantization looks like this.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.evaluation.decisions import decide, decisions_of_labels, kind_of

Limits = tuple[float, float]

# A value at an end of its range is saturated if the float model's lies farther away than this share of the range ...
_FAR = 1 / 4
# ... and an output if more than this share of its values is.
_MOST = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OutputSums:
    """What tells a degenerate output. Those of two parts of the examples add up to that of both.

    Attributes:
      examples: How many.
      lowest: The lowest value of each element of the output, flat.
      highest: The highest.
      classes: Lowest and highest class that was decided; (0, 0) without classes.
      labels: Lowest and highest label.
      saturated: Values at an end of the range, far from those of the float model.
      values: Values that could be saturated; 0 if the range is not known.
      not_numbers: Values that are infinite or not a number.
    """

    examples: int
    lowest: npt.NDArray[np.float64]
    highest: npt.NDArray[np.float64]
    classes: tuple[int, int]
    labels: tuple[int, int]
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
    ) -> "OutputSums":
        """Returns the sums of a batch.

        Args:
          labels: Of shape (examples,) or (examples, ...).
          scores: Of shape (examples, ...).
          float_scores: Those of the float model, of the same shape.
          limits: The lowest and the highest value that the output's integers stand for.
        """
        flat = scores.reshape(len(scores), -1).astype(np.float64)
        classes = known = (0, 0)
        if kind_of(labels, scores) != "values":
            decided = decide(scores, kind_of(labels, scores)).classes
            true = decisions_of_labels(labels, scores)
            classes, known = (int(decided.min()), int(decided.max())), (int(true.min()), int(true.max()))
        saturated = values = 0
        if limits is not None and float_scores is not None:
            ends = (flat <= limits[0]) | (flat >= limits[1])
            distance = np.abs(flat - float_scores.reshape(flat.shape))
            saturated, values = int((ends & (distance > _FAR * (limits[1] - limits[0]))).sum()), flat.size
        return cls(
            examples=len(flat),
            lowest=flat.min(axis=0),
            highest=flat.max(axis=0),
            classes=classes,
            labels=known,
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
            saturated=self.saturated + other.saturated,
            values=self.values + other.values,
            not_numbers=self.not_numbers + other.not_numbers,
        )

    def degenerate(self) -> tuple[str, ...]:
        """Says what is degenerate: some of "constant", "one class", "saturated", "not a number".

        One class for all is only degenerate where there are examples of several.
        """
        several = self.examples > 1
        found = {
            "constant": several and np.array_equal(self.lowest, self.highest),
            "one class": several and self.classes[0] == self.classes[1] and self.labels[0] != self.labels[1],
            "saturated": self.saturated > _MOST * self.values,
            "not a number": self.not_numbers > 0,
        }
        return tuple(name for name, holds in found.items() if holds)


def _span(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return min(first[0], second[0]), max(first[1], second[1])
