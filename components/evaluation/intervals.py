"""Confidence intervals of the difference of two paired accuracies, from sums over weighted examples."""

import math
import statistics
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

REPLICATES = 10_000
_SEED = 20_240_501
_HALVINGS = 60  # of the span from -1 to 1, down to the last bit
BETTER, WORSE, SAME = range(3)
"""Outcomes of an example: the integer model decides better than the other, worse, or as well."""

Moments: TypeAlias = npt.NDArray[np.float64]
"""By outcome examples, and sums of w, w^2, wd, w^2 d, w^2 d^2 with weight w and difference d, (3, 6)."""


def effective_examples(moments: Moments, heaviest: float) -> float:
    """Returns how many examples of equal weight surely say as much: the sum of weights by the largest; 0 of nothing.

    Kish's, the square of the sum of weights by that of their squares, is more, and right where flips do not depend on
    weights. If heavy examples flip more often, it promises too much. Here the variance of the weighted share that flips
    is at most that share by this number, whatever depends on what: sum(w^2 p) <= max(w) sum(w p).
    """
    return float(moments[:, 1].sum()) / heaviest if heaviest else 0.0


def score_low(better: float, worse: float, examples: float, confidence: float) -> float:
    """Returns the lower bound of the difference of two paired shares by Tango's score interval.

    Unlike a bootstrap's, it keeps its promise where all flips go one way and are few:
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B

    Args:
      better: How many examples flip one way; a fraction where examples weigh differently.
      worse: How many flip the other way.
      examples: How many there are.
      confidence: Of the two-sided interval, 0 to 1.

    >>> round(score_low(0, 0, 381, 0.95), 5), round(score_low(0, 10, 1_000, 0.95), 5)
    (-0.00998, -0.01831)
    """
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)

    def is_beyond(difference: float) -> bool:
        """Whether what was seen is too good for this difference to be true."""
        linear = (2 * examples - better + worse) * difference - better - worse
        constant = -worse * difference * (1 - difference)
        share = (math.sqrt(max(linear**2 - 8 * examples * constant, 0.0)) - linear) / (4 * examples)
        variance = examples * (2 * share + difference * (1 - difference))
        return better - worse - examples * difference > z * math.sqrt(max(variance, 0.0))

    low, high = -1.0, (better - worse) / examples
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_beyond(middle) else (low, middle)
    return low


def difference_interval(moments: Moments, heaviest: float, confidence: float) -> tuple[float, float]:
    """Returns bounds of the difference of the accuracies: the wider of the bootstrap's and Tango's, each way.

    Where examples weigh differently, or have several decisions, Tango's is that of `effective_examples` of one decision
    each, of which the same shares flip.

    Args:
      moments: As of `PairedSums`.
      heaviest: The largest weight of an example.
      confidence: Of the two-sided interval, 0 to 1.
    """
    low, high = _bootstrap(moments, heaviest, confidence)
    weight, examples = float(moments[:, 1].sum()), effective_examples(moments, heaviest)
    if math.isnan(low):
        return low, high
    better, worse = (abs(float(moments[outcome, 3])) / weight * examples for outcome in (BETTER, WORSE))
    return (
        min(low, score_low(better, worse, examples, confidence)),
        max(high, -score_low(worse, better, examples, confidence)),
    )


def _bootstrap(moments: Moments, heaviest: float, confidence: float) -> tuple[float, float]:
    """Bounds of the difference of the accuracies, by a bootstrap over examples.

    To draw examples anew only tells how many of each outcome are drawn, and that is multinomial: with equal weights
    and one decision for each example this is the bootstrap itself and not an approximation, at no cost per example, and
    it depends on nothing but the sums. With weights, or several decisions, what the drawn examples of one outcome add
    up to is drawn from the normal distribution with their mean and variance.

    Half an example is added to each way to flip, as by Agresti and Min (https://doi.org/10.1002/sim.1941), or ten
    examples without a flip would be taken for certainty. It weighs as much as the heaviest one: any may be the next.
    """
    count, weight = float(moments[:, 0].sum()), float(moments[:, 1].sum())
    if not weight > 0 or np.isnan(moments).any():
        return math.nan, math.nan
    prior = np.zeros_like(moments)
    for outcome, sign in ((BETTER, 1.0), (WORSE, -1.0)):
        prior[outcome] = 0.5 * np.array([1.0, heaviest, heaviest**2, sign * heaviest, sign * heaviest**2, heaviest**2])
    n, w, w2, wd, w2d, w2d2 = (moments + prior).T
    centre = float(moments[:, 3].sum()) / weight
    # Of u = w (d - centre), by outcome; an outcome that never happened is never drawn.
    drawn = np.maximum(n, 0.5)
    means = (wd - centre * w) / drawn
    variances = np.maximum((w2d2 - 2 * centre * w2d + centre**2 * w2) / drawn - means**2, 0.0)
    variances[variances < 1e-12 * (weight / count) ** 2] = 0.0  # rounding
    random = np.random.default_rng(_SEED)
    counts = random.multinomial(round(count), n / n.sum(), size=REPLICATES)
    spread = np.sqrt(counts * variances) * random.standard_normal(counts.shape)
    replicates = centre + (counts @ means + spread.sum(axis=1)) / weight
    low, high = np.clip(np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2]), -1, 1)
    return float(low), float(high)
