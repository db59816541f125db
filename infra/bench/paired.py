"""Differences of two classifiers on the same examples: what an unpaired comparison would lose in its noise."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How much more often one classifier is right than another.

    Attributes:
      points: Difference of the accuracies in percentage points, mean over the seeds.
      standard_error: Its standard error over examples. Seeds share their examples, so that each example counts once,
        with the mean of its differences.
      by_seed: The difference of each seed, in points.
      p_by_seed: The exact, two-sided p-value of McNemar's test for each seed.
    """

    points: float
    standard_error: float
    by_seed: tuple[float, ...]
    p_by_seed: tuple[float, ...]


def difference(right: npt.NDArray[np.bool_], baseline: npt.NDArray[np.bool_]) -> Difference:
    """Compares two classifiers.

    Args:
      right: Whether one was right, (seeds, examples).
      baseline: The same of the other.
    """
    each = right.astype(np.float64) - baseline.astype(np.float64)
    clustered = each.mean(axis=0)
    return Difference(
        points=100.0 * float(clustered.mean()),
        standard_error=100.0 * float(clustered.std(ddof=1)) / math.sqrt(len(clustered)),
        by_seed=tuple(100.0 * float(value) for value in each.mean(axis=1)),
        p_by_seed=tuple(mcnemar(int(np.sum(row > 0)), int(np.sum(row < 0))) for row in each),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Returns the exact, two-sided p-value of so many examples gained and lost, if both were equally likely.

    >>> mcnemar(1, 1), mcnemar(0, 5)
    (1.0, 0.0625)
    """
    changed = gained + lost
    tail: int = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << changed))
