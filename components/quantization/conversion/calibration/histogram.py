"""How often a tensor has which values, in bounded memory."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

# 64 bins for each of the 256 steps of 8 bits over the whole range: a range of 1/64 of it still has one per step.
BINS = 16384


@dataclasses.dataclass(kw_only=True, slots=True)
class Histogram:
    """Counts of values in bins of equal width between limits that are known beforehand.

    Attributes:
      lower: Lower limit, in real units; values below it count in the first bin.
      upper: Upper limit, above `lower`; values above it count in the last bin.
      counts: Number of values per bin, int64 of shape (bins,).
      zeros: How many of the values are exactly 0.0, which every 8-bit grid represents without error.

    >>> histogram = Histogram(lower=0.0, upper=4.0, counts=np.zeros(4, np.int64))
    >>> histogram.add(np.array([0.0, 0.5, 3.5, 9.0]))
    >>> histogram.counts.tolist(), histogram.zeros
    ([2, 0, 0, 2], 1)
    """

    lower: float
    upper: float
    counts: npt.NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0

    def add(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """Counts finite values, of any shape."""
        bins = len(self.counts)
        # In float64: a narrow range far from zero has no float32 between its bins.
        places = (values.ravel().astype(np.float64) - self.lower) * (bins / (self.upper - self.lower))
        places = np.clip(places, 0, bins - 1).astype(np.int64)
        self.counts += np.bincount(places, minlength=bins)
        self.zeros += int(values.size - np.count_nonzero(values))

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Where bins begin and end, ascending, of shape (bins + 1,)."""
        return np.linspace(self.lower, self.upper, len(self.counts) + 1)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())
