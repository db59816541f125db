"""The knobs of a training. Imports no TensorFlow, so that a config can be read in no time."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingParameters:
    """Every knob of a training.

    Attributes:
      float_epochs: Epochs of float training; not used with a base model.
      qat_epochs: Epochs of quantization-aware fine-tuning.
      batch_size: Examples of a step.
      float_learning_rate: Learning rate of float training.
      qat_learning_rate: Learning rate of fine-tuning, usually a tenth or less of the other.
      train_steps: Steps of an epoch; 0 for the whole split.
      eval_steps: Steps of an evaluation; 0 for the whole split.
      early_stopping_patience: Epochs without a better validation loss before a loop stops and takes its best weights;
        0 for no early stopping.
      seed: Seed of initial weights, shuffles and dropout.
    """

    float_epochs: int = 10
    qat_epochs: int = 3
    batch_size: int = 32
    float_learning_rate: float = 1e-3
    qat_learning_rate: float = 1e-4
    train_steps: int = 0
    eval_steps: int = 0
    early_stopping_patience: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        wrong = [f"{name}={getattr(self, name)} (at least 1)" for name in _POSITIVE if getattr(self, name) < 1]
        wrong += [f"{name}={getattr(self, name)} (at least 0)" for name in _COUNTS if getattr(self, name) < 0]
        wrong += [f"{name}={getattr(self, name)} (above 0)" for name in _RATES if not getattr(self, name) > 0]
        if self.seed >= 2**32:
            wrong.append(f"seed={self.seed} (below 2**32)")
        if wrong:
            raise ValueError(f"training parameters out of range: {', '.join(wrong)}")

    def to_json(self) -> str:
        """Returns the canonical JSON: sorted keys, no spaces. Part of a component's cache key."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Returns the names of the parameters."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def updated(self, values: Mapping[str, Any]) -> "TrainingParameters":
        """Returns a copy with some of the parameters changed, for example by a tuner.

        Raises:
          ValueError: If a name is no parameter or a value is out of range.
        """
        known = {name: type(getattr(self, name)) for name in self.names()}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"no training parameters: {', '.join(unknown)}; there are {', '.join(known)}")
        return dataclasses.replace(self, **{name: known[name](value) for name, value in values.items()})


_POSITIVE = ("float_epochs", "qat_epochs", "batch_size")
_COUNTS = ("train_steps", "eval_steps", "early_stopping_patience", "seed")
_RATES = ("float_learning_rate", "qat_learning_rate")
