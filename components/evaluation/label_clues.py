"""Whether labels may be meant otherwise than they are taken, told from the examples of a whole split."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.evaluation.decisions import Kind, is_one_hot, kind_of

_ROUNDING = 1e-3  # by which probabilities miss 0 and 1, and softmaxes their sum


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LabelClues:
    """What tells labels and scores of one kind from those of another. Those of two parts add up to that of both.

    Attributes:
      kind: What the labels are taken for.
      declared: Whether somebody said so.
      one_hot: Whether the labels of every example are one-hot.
      flags: Whether every label is 0 or 1.
      sums_to_one: Whether the scores of every example are one of several that add up to 1.
      decided_at_half: Whether a score alone decides, at 0.5.
      lowest: The lowest score.
      highest: The highest score.
    """

    kind: Kind
    declared: bool
    one_hot: bool
    flags: bool
    sums_to_one: bool
    decided_at_half: bool
    lowest: float
    highest: float

    @classmethod
    def of(cls, labels: npt.NDArray[Any], scores: npt.NDArray[Any], declared: Kind | None) -> "LabelClues":
        """Returns the clues of a batch.

        Args:
          labels: Of shape (examples,) or (examples, ...).
          scores: Those of the float model, (examples, ...).
          declared: As of `decisions.kind_of`.
        """
        wide = scores.ndim > 1 and scores.shape[-1] > 1
        kind = kind_of(labels, scores, declared)
        return cls(
            kind=kind,
            declared=declared is not None,
            one_hot=wide and labels.shape == scores.shape and bool(is_one_hot(labels).all()),
            flags=bool(((labels == 0) | (labels == 1)).all()),
            sums_to_one=wide and bool((np.abs(scores.sum(axis=-1) - 1) < _ROUNDING).all()),
            decided_at_half=kind == "labels" or (kind == "classes" and not wide),
            lowest=float(scores.min()),
            highest=float(scores.max()),
        )

    def __add__(self, other: "LabelClues") -> "LabelClues":
        return dataclasses.replace(
            self,
            one_hot=self.one_hot and other.one_hot,
            flags=self.flags and other.flags,
            sums_to_one=self.sums_to_one and other.sums_to_one,
            lowest=min(self.lowest, other.lowest),
            highest=max(self.highest, other.highest),
        )

    @property
    def accuracy_class(self) -> str:
        """The class of Keras that counts right decisions on such labels and scores; "" of values."""
        if self.kind == "values":
            return ""
        if self.decided_at_half:
            return "BinaryAccuracy"
        return "CategoricalAccuracy" if self.one_hot else "SparseCategoricalAccuracy"

    def question(self) -> str:
        """Returns what has to be said or mended before figures mean anything; empty if nothing has.

        >>> onehot, softmax = np.eye(3, dtype=int), np.full((3, 3), 1 / 3)
        >>> LabelClues.of(onehot, softmax, None).question()
        "labels are one-hot and scores add up to 1, yet they count as labels; set label_kind='classes', or 'labels'"
        >>> LabelClues.of(onehot, softmax, "classes").question()
        ''
        """
        probabilities = self.lowest >= -_ROUNDING and self.highest <= 1 + _ROUNDING
        if self.decided_at_half and not probabilities:
            return (
                f"scores reach from {self.lowest:.4g} to {self.highest:.4g}, but a score alone decides at 0.5, as a"
                " probability; end the model in a sigmoid"
            )
        if self.declared or self.kind == "classes":
            return ""
        if self.one_hot and self.sums_to_one:
            return (
                f"labels are one-hot and scores add up to 1, yet they count as {self.kind}; set label_kind='classes',"
                f" or '{self.kind}'"
            )
        if self.kind == "values" and self.flags and probabilities:
            return (
                "labels are 0 and 1 alone and scores are probabilities, yet they count as values; set"
                " label_kind='labels' for several labels, 'classes' for one, or 'values'"
            )
        return ""
