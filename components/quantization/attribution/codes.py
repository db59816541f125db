"""Which integers a tensor takes, and how far its values are from others, added up over examples."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion.flatbuffer import Tensor

HISTOGRAM_BINS = 32
_INTEGERS = ("INT8", "UINT8", "INT16")


class CodeCounts:
    """How often each integer of a quantized tensor occurs."""

    def __init__(self, tensor: Tensor) -> None:
        """Begins with none; a tensor of another type than int8, uint8 and int16 has no codes."""
        limits = np.iinfo(tensor.dtype.lower()) if tensor.scale and tensor.dtype in _INTEGERS else None
        self._low = int(limits.min) if limits else 0
        self.counts = np.zeros(int(limits.max) - self._low + 1 if limits else 0, np.int64)

    def add(self, codes: npt.NDArray[Any]) -> None:
        """Counts the integers of an array."""
        if len(self.counts):
            self.counts += np.bincount(codes.ravel().astype(np.int64) - self._low, minlength=len(self.counts))

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def histogram(self) -> tuple[int, ...]:
        """How many values lie in each of `HISTOGRAM_BINS` equal parts of the integers' range; empty without codes."""
        return tuple(self.counts.reshape(HISTOGRAM_BINS, -1).sum(axis=1).tolist()) if len(self.counts) else ()

    @property
    def saturation(self) -> float:
        """Share, 0..1, of the values that are the smallest or the largest integer; NaN if there are none."""
        return int(self.counts[0] + self.counts[-1]) / self.total if self.total else math.nan

    @property
    def utilisation(self) -> float:
        """Share, 0..1, of the integers that occur; NaN if there are fewer values than integers."""
        enough = self.total >= len(self.counts) > 0
        return int(np.count_nonzero(self.counts)) / len(self.counts) if enough else math.nan

    @property
    def span(self) -> float:
        """Share, 0..1, of the integers that lie from the smallest to the largest that occurs; NaN without values."""
        occurring = np.flatnonzero(self.counts)
        return int(occurring[-1] - occurring[0] + 1) / len(self.counts) if self.total else math.nan


class Noise:
    """Signal, noise and the largest difference of two tensors."""

    def __init__(self) -> None:
        """Begins with none."""
        self._signal = self._noise = self.largest = 0.0

    def add(self, expected: npt.NDArray[Any], got: npt.NDArray[Any]) -> None:
        """Adds values, of one shape, or of one size."""
        expected = expected.astype(np.float64)
        difference = got.reshape(expected.shape) - expected
        self._signal += float(np.sum(expected**2))
        self._noise += float(np.sum(difference**2))
        self.largest = max(self.largest, float(np.max(np.abs(difference), initial=0.0)))

    @property
    def sqnr_db(self) -> float:
        """Ratio of signal to noise in dB; inf without noise."""
        if self._noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self._signal / self._noise) if self._signal else -math.inf
