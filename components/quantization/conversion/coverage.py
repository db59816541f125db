"""How well the examples that ranges were calibrated with stand for the split that they are from."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
# Percentiles are of so many values of an example, evenly spaced: of millions they take long and say the same.
_VALUES = 1000

Batch = Mapping[str, npt.NDArray[Any]]


class FeatureRange:
    """The values of one feature over batches, and how many lie beyond some limits."""

    def __init__(self, limits: tuple[float, float] = (-math.inf, math.inf)) -> None:
        """Begins with none."""
        self._limits = limits
        self._kept: list[npt.NDArray[np.float64]] = []
        self._count = self._beyond = 0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: npt.NDArray[Any]) -> None:
        """Adds a batch of shape (examples, ...)."""
        rows = values.reshape(len(values), -1).astype(np.float64)
        self.low, self.high = min(self.low, float(rows.min())), max(self.high, float(rows.max()))
        self._count += rows.size
        self._beyond += int(np.sum((rows < self._limits[0]) | (rows > self._limits[1])))
        self._kept.append(rows[:, :: -(-rows.shape[1] // _VALUES)].ravel())

    @property
    def beyond(self) -> float:
        """Share, 0..1, of the values beyond the limits."""
        return self._beyond / self._count

    def to_dict(self) -> dict[str, Any]:
        """Returns "min", "max" and "percentiles" by their names."""
        found = np.percentile(np.concatenate(self._kept), PERCENTILES)
        percentiles = {f"{name:g}": float(value) for name, value in zip(PERCENTILES, found, strict=True)}
        return {"min": self.low, "max": self.high, "percentiles": percentiles}


def coverage(sample: Sequence[Batch], split: Iterable[Batch], names: Sequence[str]) -> dict[str, Any]:
    """Compares a sample with its split, or as much of this as is given.

    Args:
      sample: Batches of features by name.
      split: The same; at least one.
      names: The features: inputs of the model.

    Returns:
      "sample_examples", "split_examples" and "inputs": for each name, "sample" and "split", each with "min", "max" and
      "percentiles", and "split_beyond_sample", the share, 0..1, of the split's values that lie below the smallest or
      above the largest of the sample, which a model calibrated with it clips at its input.
    """
    sampled = {name: FeatureRange() for name in names}
    examples = _add(sample, sampled)
    whole = {name: FeatureRange((one.low, one.high)) for name, one in sampled.items()}
    of_split = _add(split, whole)
    return {
        "sample_examples": examples,
        "split_examples": of_split,
        "inputs": {
            name: {
                "sample": sampled[name].to_dict(),
                "split": whole[name].to_dict(),
                "split_beyond_sample": whole[name].beyond,
            }
            for name in names
        },
    }


def _add(batches: Iterable[Batch], ranges: Mapping[str, FeatureRange]) -> int:
    count = 0
    for batch in batches:
        for name, one in ranges.items():
            one.add(batch[name])
        count += len(next(iter(batch.values())))
    return count


def coverage_json(found: Mapping[str, Any], split: str, seed: int) -> str:
    """Returns it as text, with the name of the split and the seed that chose the sample."""
    return json.dumps({**found, "split": split, "seed": seed}, indent=1, sort_keys=True) + "\n"
