"""The integer model against another on the same examples: sums that merge, and the statistics that follow from them.

Everything is a sum over examples, or the largest of them: parts merge in any order, and memory does not grow with their
number.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from components.evaluation.decisions import Kind, decide, decisions_of_labels, kind_of
from components.evaluation.intervals import BETTER, SAME, WORSE, Moments, difference_interval, effective_examples
from components.evaluation.measurements import Paired
from components.evaluation.proportion import Proportion

BINS = 15  # of the calibration error, of equal width: https://arxiv.org/abs/1706.04599
# Up to so many flips the test is exact; beyond, the two agree to three digits.
_EXACT_FLIPS = 1_000
_ROUNDING = 1e-6  # by which probabilities in float32 miss 0 and 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """A batch with the predictions of both models.

    Attributes:
      labels: Integers for classes, floats for values; of shape (examples,) or (examples, ...).
      scores: Those of the integer model, (examples, ...).
      other_scores: Those of the other model, of the same shape.
      weights: Of shape (examples,).
      kind: What the labels are, if it was declared.
    """

    labels: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    other_scores: npt.NDArray[Any]
    weights: npt.NDArray[np.float64]
    kind: Kind | None = None

    def rows(self, chosen: npt.NDArray[Any]) -> "Examples":
        """Some of the examples."""
        return Examples(
            labels=self.labels[chosen],
            scores=self.scores[chosen],
            other_scores=self.other_scores[chosen],
            weights=self.weights[chosen],
            kind=self.kind,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PairedSums:
    """Sums over examples, and the largest weight. Two of the same output add up to those of all their examples.

    Attributes:
      moments: By outcome (better, worse, same), of shape (3, 6).
      heaviest: The largest weight of an example.
      agreed: Sum of weight times share of equal classes.
      right: Of both models, sum of weight times share of right classes, (2,); NaN of values.
      ties: Of both models, (2,).
      bins: For both models and each bin sums of weight, confidence and right decisions, (2, BINS, 3).
      improper: Confidences of both models that are no probabilities, (2,).
      by_class: For each class, or each of several labels, examples, agreeing, better and worse, (classes, 4); empty for
        maps of classes and for values. Of several labels better and worse count the decisions on that label alone.
    """

    moments: Moments
    heaviest: float
    agreed: float
    right: npt.NDArray[np.float64]
    ties: npt.NDArray[np.int64]
    bins: npt.NDArray[np.float64]
    improper: npt.NDArray[np.int64]
    by_class: npt.NDArray[np.int64]

    @classmethod
    def of(cls, examples: Examples) -> "PairedSums":
        """Returns the sums of a batch.

        Raises:
          ValueError: If shapes of scores differ, or a label is no class of the model.
        """
        if examples.scores.shape != examples.other_scores.shape:
            raise ValueError(
                f"scores of the integer model have shape {examples.scores.shape}, those of the other"
                f" {examples.other_scores.shape}; compare models with the same outputs"
            )
        kind = kind_of(examples.labels, examples.scores, examples.kind)
        if kind == "values":
            return cls._of_values(examples.weights)
        labels = decisions_of_labels(examples.labels, examples.scores, kind)
        decided = [decide(scores, kind) for scores in (examples.scores, examples.other_scores)]
        right = [model.classes == labels for model in decided]
        agreeing = (decided[0].classes == decided[1].classes).mean(axis=1)
        difference = right[0].mean(axis=1) - right[1].mean(axis=1)
        outcomes = np.select([difference > 0, difference < 0], [BETTER, WORSE], SAME)
        binned = [_binned(model.confidences, of, examples.weights) for model, of in zip(decided, right, strict=True)]
        single = kind == "classes" and labels.shape[1] == 1
        return cls(
            moments=_moments(outcomes, examples.weights, difference),
            heaviest=float(examples.weights.max(initial=0)),
            agreed=float(examples.weights @ agreeing),
            right=np.array([float(examples.weights @ of.mean(axis=1)) for of in right]),
            ties=np.array([model.tied.sum() for model in decided]),
            bins=np.stack([bins for bins, _ in binned]),
            improper=np.array([improper for _, improper in binned]),
            by_class=_by_class(labels[:, 0], agreeing, outcomes, max(2, examples.scores.shape[-1]))
            if single
            else _by_label(right[0], right[1])
            if kind == "labels"
            else np.zeros((0, 4), np.int64),
        )

    @classmethod
    def _of_values(cls, weights: npt.NDArray[np.float64]) -> "PairedSums":
        nothing = np.full(len(weights), np.nan)
        return cls(
            moments=_moments(np.full(len(weights), SAME), weights, nothing),
            heaviest=float(weights.max(initial=0)),
            agreed=math.nan,
            right=np.full(2, math.nan),
            ties=np.zeros(2, np.int64),
            bins=np.zeros((2, BINS, 3)),
            improper=np.full(2, len(weights)),
            by_class=np.zeros((0, 4), np.int64),
        )

    def __add__(self, other: "PairedSums") -> "PairedSums":
        added = {field.name for field in dataclasses.fields(self)} - {"heaviest"}
        return PairedSums(
            heaviest=max(self.heaviest, other.heaviest),
            **{name: getattr(self, name) + getattr(other, name) for name in added},
        )

    def accuracies(self, confidence: float = 0.95) -> tuple[Proportion, Proportion]:
        """Returns the accuracy of the integer and of the other model; NaN of values, and where nothing weighs."""
        weight, effective = float(self.moments[:, 1].sum()), effective_examples(self.moments, self.heaviest)
        ours, other = (
            Proportion.of(float(right) / weight if weight else math.nan, effective, confidence) for right in self.right
        )
        return ours, other

    def paired(self, confidence: float = 0.95) -> Paired:
        """Returns the statistics."""
        weight = float(self.moments[:, 1].sum())
        better, worse = int(self.moments[BETTER, 0]), int(self.moments[WORSE, 0])
        difference = float(self.moments[:, 3].sum()) / weight if weight else math.nan
        low, high = difference_interval(self.moments, self.heaviest, confidence)
        errors = [_calibration_error(*of) for of in zip(self.bins, self.improper, strict=True)]
        return Paired(
            examples=int(self.moments[:, 0].sum()),
            effective_examples=effective_examples(self.moments, self.heaviest),
            agreement=self.agreed / weight if weight else math.nan,
            better=better,
            worse=worse,
            difference=difference,
            low=low,
            high=high,
            confidence=confidence,
            mcnemar_p=math.nan if math.isnan(difference) else mcnemar(better, worse),
            ties=int(self.ties[0]),
            other_ties=int(self.ties[1]),
            calibration_error=errors[0],
            other_calibration_error=errors[1],
        )


def mcnemar(better: int, worse: int) -> float:
    """Returns the two-sided p-value of so many flips each way, if both ways were equally likely.

    It is exact for up to 1,000 flips, else by the chi-square distribution with continuity correction.

    >>> mcnemar(1, 1), mcnemar(0, 5)
    (1.0, 0.0625)
    """
    flips = better + worse
    if flips <= _EXACT_FLIPS:
        tail = sum(math.comb(flips, k) for k in range(min(better, worse) + 1))
        return min(1.0, 2 * tail / (1 << flips))
    statistic = max(0, abs(better - worse) - 1) ** 2 / flips
    return math.erfc(math.sqrt(statistic / 2))


def _moments(
    outcomes: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], difference: npt.NDArray[np.float64]
) -> Moments:
    weighted = weights * difference
    columns = [np.ones_like(weights), weights, weights**2, weighted, weights * weighted, weighted**2]
    return np.stack([np.bincount(outcomes, column, minlength=3) for column in columns], axis=1)


def _by_class(
    labels: npt.NDArray[np.int64], agreeing: npt.NDArray[np.float64], outcomes: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    columns = [np.ones(len(labels), bool), agreeing == 1, outcomes == BETTER, outcomes == WORSE]
    return np.stack([np.bincount(labels[column], minlength=classes) for column in columns], axis=1)


def _by_label(right: npt.NDArray[np.bool_], other_right: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Sums for each of several labels, on which two models agree if both are right or both wrong."""
    columns = [np.ones_like(right), right == other_right, right & ~other_right, ~right & other_right]
    return np.stack([column.sum(axis=0) for column in columns], axis=1)


def _binned(
    confidences: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], int]:
    """Sums of weight, confidence and right decisions in bins of confidence; how many confidences are no probability."""
    proper = (confidences >= -_ROUNDING) & (confidences <= 1 + _ROUNDING)
    each = np.broadcast_to(weights[:, None] / confidences.shape[1], confidences.shape)[proper]
    bins = np.clip((confidences[proper] * BINS).astype(np.int64), 0, BINS - 1)
    columns = [each, each * confidences[proper], each * right[proper]]
    sums: npt.NDArray[np.float64] = np.stack([np.bincount(bins, column, minlength=BINS) for column in columns], axis=1)
    return sums, int(proper.size - proper.sum())


def _calibration_error(bins: npt.NDArray[np.float64], improper: int) -> float:
    weight = float(bins[:, 0].sum())
    return math.nan if improper or not weight else float(np.abs(bins[:, 1] - bins[:, 2]).sum()) / weight
