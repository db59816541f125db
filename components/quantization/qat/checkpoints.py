"""Checkpoints of a training loop: everything that the rest of it depends on, in one file that is whole or not there."""

import dataclasses
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_LOGGER = logging.getLogger(__name__)

# Two: of several workers, some may have been killed before they wrote the last one.
_KEPT = 2
_STATE = "state"
_FINGERPRINT = "fingerprint"

Arrays = list[list[npt.NDArray[Any]]]


@dataclasses.dataclass(kw_only=True, slots=True)
class TrainingState:
    """Where a loop stands, besides its variables.

    Attributes:
      saves: Checkpoints written so far.
      epoch: Epochs done.
      step: Steps of the current epoch done.
      total_steps: Steps done.
      passes: Passes over the train split done.
      batch: Batches of the current pass used.
      history: Metrics of each epoch by name; those on the eval split begin with val_.
      best: The best value of the metric of early stopping.
      best_epoch: The epoch that had it, from 1; 0 for none.
      finished: Whether the loop is done, and the variables are its result.
    """

    saves: int = 0
    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    passes: int = 0
    batch: int = 0
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    best: float = 0.0
    best_epoch: int = 0
    finished: bool = False


def read_variables(variables: Sequence[Any], strategy: tf.distribute.Strategy) -> Arrays:
    """Returns the values of variables, by variable and by replica of this worker.

    Replicas differ in what they average only when it is read, such as the statistics of batch normalization.
    """
    return [[part.numpy() for part in strategy.experimental_local_results(variable)] for variable in variables]


def write_variables(variables: Sequence[Any], arrays: Arrays, strategy: tf.distribute.Strategy) -> None:
    """Sets variables to what `read_variables` returned."""
    for variable, values in zip(variables, arrays, strict=True):
        for part, value in zip(strategy.experimental_local_results(variable), values, strict=True):
            part.assign(value)


class Checkpoints:
    """The checkpoints of one loop in a directory that further attempts of the same training see again."""

    def __init__(self, directory: Path, loop: str, fingerprint: Mapping[str, str]) -> None:
        """Opens the directory; makes it if it is not there.

        Args:
          directory: On a local or mounted file system; only trainings may write there.
          loop: Name of the loop.
          fingerprint: What a checkpoint must agree in, by what it is called in the log.
        """
        self._directory = directory
        self._loop = loop
        self._fingerprint = dict(fingerprint)
        directory.mkdir(parents=True, exist_ok=True)

    def newest(self) -> int:
        """Returns the number of the newest checkpoint that is this training's, 0 for none.

        Those of other trainings are deleted.
        """
        for path in reversed(self._paths()):
            try:
                with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                    found = json.loads(str(file[_FINGERPRINT]))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                _LOGGER.warning("checkpoint %s cannot be read (%s): not used", path, error)
                path.unlink()
                continue
            keys = {*found, *self._fingerprint}
            differing = sorted(key for key in keys if found.get(key) != self._fingerprint.get(key))
            if not differing:
                return int(path.stem.rpartition("-")[2])
            _LOGGER.warning("checkpoint %s is of other %s: not used", path, ", ".join(differing))
            path.unlink()
        return 0

    def discard_after(self, number: int) -> None:
        """Deletes the checkpoints after one; 0 for all."""
        for path in self._paths():
            if path > self._path(number):
                path.unlink()

    def load(self, number: int) -> tuple[TrainingState, dict[str, Arrays]]:
        """Returns the state and the groups of arrays that `save` was given.

        Raises:
          ValueError: If that checkpoint is not there or broken.
        """
        path = self._path(number)
        groups: dict[str, Arrays] = {}
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                state = TrainingState(**json.loads(str(file[_STATE])))
                for key in file.files:
                    if key not in (_STATE, _FINGERPRINT):
                        group, index, _ = key.split("/")
                        arrays = groups.setdefault(group, [])
                        if len(arrays) <= int(index):
                            arrays.append([])
                        arrays[int(index)].append(file[key])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"checkpoint {path} cannot be read: {error}; delete {self._directory} to train from the start"
            ) from error
        return state, groups

    def save(self, state: TrainingState, groups: Mapping[str, Arrays]) -> None:
        """Writes a checkpoint under a temporary name, then renames it; deletes old ones."""
        state.saves += 1
        arrays = {
            f"{group}/{index}/{replica}": value
            for group, values in groups.items()
            for index, parts in enumerate(values)
            for replica, value in enumerate(parts)
        }
        arrays[_STATE] = np.array(json.dumps(dataclasses.asdict(state)))
        arrays[_FINGERPRINT] = np.array(json.dumps(self._fingerprint))
        path = self._path(state.saves)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        for old in self._paths()[:-_KEPT]:
            old.unlink()

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._loop}-{number:08d}.npz"

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob(f"{self._loop}-*.npz"))


def remove_checkpoints(directory: Path) -> None:
    """Deletes a directory of checkpoints with all in it, after the training's results are safe elsewhere."""
    shutil.rmtree(directory, ignore_errors=True)
