"""What the distribution of a model's inputs is told by: some values of each example, their mean and their deviation.

The raw feature of an image may be compressed bytes, of which no statistics mean anything, and what Transform makes of
it is normalized anew on each span, so that a drift it corrects is not seen there. What a deployed model sees is seen in
its own inputs, made by its own preprocessing. Of an image their values are its histogram, their mean in each example
its brightness, their deviation its contrast: a shift of either that is small beside the spread of all pixels shows in
these two.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Of each example so many values at places that only the size decides: the same ones in every run.
_VALUES = 256

Batch = Mapping[str, npt.NDArray[Any]]


class InputColumns:
    """Columns of numbers, each of shape (examples, values), of a model's inputs."""

    def __init__(self, names: Sequence[str]) -> None:
        """Begins with no example of the inputs of these names."""
        self._names = names
        self._kept: dict[str, list[npt.NDArray[Any]]] = {}

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields the batches and keeps what is needed of each."""
        for batch in batches:
            self.add(batch)
            yield batch

    def add(self, batch: Batch) -> None:
        """Adds a batch of features by name, each of shape (examples, ...)."""
        for name in self._names:
            if batch[name].dtype.kind not in "fiub":
                continue
            rows = batch[name].reshape(len(batch[name]), -1)
            self._keep(name, rows[:, _places(rows.shape[1])])
            if rows.shape[1] > 1:
                self._keep(f"{name}/mean", rows.mean(axis=1, dtype=np.float64, keepdims=True))
                self._keep(f"{name}/std", rows.std(axis=1, dtype=np.float64, keepdims=True))

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns so far: of each input its name, and "NAME/mean" and "NAME/std" if it has several values."""
        return {name: np.concatenate(parts) for name, parts in self._kept.items()}

    def _keep(self, name: str, values: npt.NDArray[Any]) -> None:
        self._kept.setdefault(name, []).append(values)


def _places(size: int) -> npt.NDArray[np.int64]:
    """Evenly spaced ones could all be of one colour."""
    if size <= _VALUES:
        return np.arange(size)
    return np.sort(np.random.default_rng(size).choice(size, _VALUES, replace=False))
