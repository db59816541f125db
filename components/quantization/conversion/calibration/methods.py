"""From the histogram of a tensor to the range that is worth the steps of its grid."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from components.quantization.conversion.calibration.histogram import Histogram

Range = tuple[float, float]

_PERCENTILE = "percentile_"
# An end of a range never shrinks by more: a tensor that is nearly always zero would lose all that it says.
_SMALLEST_SHARE = 1 / 64
# Shares of each end that "mse" tries: 16 per halving, steps of 4.4 %.
_SHARES = 2.0 ** -(np.arange(97) / 16)
# Steps between the codes of an 8-bit grid.
_STEPS = 255


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationMethod:
    """How the range of a tensor follows from its values.

    Attributes:
      name: "min_max", "mse", or "percentile_P".
      percentile: P: percent of the values that lie within either end of the range; None if it is another method.
    """

    name: str
    percentile: float | None = None

    def range_of(self, histogram: Histogram) -> Range:
        """Returns the range: within the bins that have values, but always with 0.0 in it.

        The limits of a histogram may be wider: TensorFlow's calibration counts a tensor again after an op that writes
        its result over its input.

        >>> values = Histogram(lower=-1.0, upper=3.0, counts=np.array([2, 2, 95, 1]))
        >>> load_method("percentile_99").range_of(values)
        (-1.0, 2.0)
        """
        if self.name == "min_max" or not histogram.total:
            return min(histogram.lower, 0.0), max(histogram.upper, 0.0)
        used = np.flatnonzero(histogram.counts)
        widest = min(float(histogram.edges[used[0]]), 0.0), max(float(histogram.edges[used[-1] + 1]), 0.0)
        if self.name == "mse":
            return _least_error(histogram, widest)
        if self.percentile is None:
            raise ValueError(f"calibration method {self.name!r}: got no percentile, expected one; use load_method")
        return _percentile(histogram, widest, self.percentile)


def load_method(name: str) -> CalibrationMethod:
    """Returns the method of that name.

    Raises:
      ValueError: If there is none.

    >>> load_method("percentile_99.9").percentile
    99.9
    """
    if name in {"min_max", "mse"}:
        return CalibrationMethod(name=name)
    try:
        percentile = float(name.removeprefix(_PERCENTILE)) if name.startswith(_PERCENTILE) else math.nan
    except ValueError:
        percentile = math.nan
    if not 50 < percentile < 100:
        raise ValueError(
            f"calibration method: got {name!r}, expected min_max, mse or percentile_P with 50 < P < 100, for example"
            " percentile_99.9"
        )
    return CalibrationMethod(name=name, percentile=percentile)


def _percentile(histogram: Histogram, widest: Range, percentile: float) -> Range:
    """The edges of the bins within which, seen from the other end, that many values lie."""
    edges = histogram.edges
    # The smallest number of values that is enough; a rounding error above a whole number asks for no more.
    enough = math.ceil(histogram.total * percentile / 100 - 1e-9)
    upper = edges[1 + np.searchsorted(np.cumsum(histogram.counts), enough)]
    lower = edges[-2 - np.searchsorted(np.cumsum(histogram.counts[::-1]), enough)]
    return (
        max(widest[0], min(float(lower), widest[0] * _SMALLEST_SHARE)),
        min(widest[1], max(float(upper), widest[1] * _SMALLEST_SHARE)),
    )


def _least_error(histogram: Histogram, widest: Range) -> Range:
    """The range, of those tried, with the least error; the widest of equals.

    A value inside errs by rounding, evenly spread over a step s, so by s²/12 in the mean square; an exact zero not at
    all; a value outside errs by its distance to the range.
    """
    lowers = widest[0] * _SHARES if widest[0] < 0 else np.zeros(1)
    uppers = widest[1] * _SHARES if widest[1] > 0 else np.zeros(1)
    below, clipped_below = _clipped(-histogram.edges[::-1], histogram.counts[::-1], -lowers)
    above, clipped_above = _clipped(histogram.edges, histogram.counts, uppers)
    inside = histogram.total - histogram.zeros - below[:, None] - above[None, :]
    steps = (uppers[None, :] - lowers[:, None]) / _STEPS
    errors = inside * steps**2 / 12 + clipped_below[:, None] + clipped_above[None, :]
    lower, upper = np.unravel_index(np.argmin(errors), errors.shape)
    return float(lowers[lower]), float(uppers[upper])


def _clipped(
    edges: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], limits: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """How many values lie above each limit, and the sum of their squared distances to it.

    The values of a bin count as its upper edge, so that none is clipped unnoticed.
    """
    values = edges[1:]
    # Sums over bin k and all above it, and none behind the last: of 1, of the value, of its square.
    powers = np.stack([counts, counts * values, counts * values**2])
    sums = np.concatenate([np.cumsum(powers[:, ::-1], axis=1)[:, ::-1], np.zeros((3, 1))], axis=1)
    number, first, second = sums[:, np.searchsorted(values, limits, side="right")]
    return number.astype(np.int64), second - 2 * limits * first + limits**2 * number
