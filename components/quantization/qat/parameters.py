"""The knobs of a training. Imports no TensorFlow, so that a config can be read in no time."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingParameters:
    """Every knob of a training.

    "Float" is the first loop, "fine-tuning" the quantization-aware one; what names neither serves both. Steps count
    from the start of a loop.

    Attributes:
      strategy: How the float model becomes one of integers. "qat": quantization-aware fine-tuning. "ptq": only its
        ranges are found, from calibration_examples. "auto": the first of "ptq", fine-tuning of the layers that lose
        most, "qat", and "qat" with more bits where most is lost, whose integer model passes the gates.
      untrainable: What becomes of layers that cannot be trained with fake quantization: "calibrate" leaves their ranges
        to the converter, "fail" refuses the model.
      float_epochs: Epochs of float training; not used with a base model.
      qat_epochs: Epochs of quantization-aware fine-tuning.
      calibration_examples: How many examples of the train split post-training quantization takes ranges from.
      batch_size: Examples of a step, over all replicas together where training is distributed.
      float_learning_rate: Learning rate of float training.
      qat_learning_rate: Learning rate of fine-tuning, usually a tenth or less of the other.
      learning_rate_schedule: "constant", or "cosine": from the learning rate down to 0 over all steps of the loop.
      gradient_clip_norm: Largest norm of all gradients together, in place of any clipping of the optimizer's own;
        0 leaves that as it is.
      train_steps: Steps of an epoch; 0 for the whole split.
      eval_steps: Steps of an evaluation; 0 for the whole split.
      early_stopping_patience: Epochs without a better early_stopping_metric before a loop stops. A loop with early
        stopping ends with its best epoch's weights, stopped or not; 0 for no early stopping.
      early_stopping_metric: Name of a validation metric; in fine-tuning it is that of the fake-quantized model.
      early_stopping_mode: "min" where less is better, "max" where more is, "auto" to tell by the metric's name.
      freeze_observers_after_steps: Step of fine-tuning after which the ranges of activations stay; 0 for never.
      freeze_batch_normalization_after_steps: Step of fine-tuning after which batch normalizations use their moving
        averages and train no more; 0 for never, 1 for almost all of it.
      distillation_weight: Share of the distance to the float model's outputs in the loss of fine-tuning, 0..1; the
        rest is the model's own loss.
      distillation_temperature: What the logits of class probabilities are divided by before they are compared; above 1
        it brings out what the float model thinks of the wrong classes.
      checkpoint_steps: Steps between two checkpoints, besides one after each epoch; 0 for no more than those. Used only
        where a run has a directory for checkpoints.
      probe_steps: Steps of fine-tuning after which the model is converted and held against the gates of its targets
        again, since a compiler may take other weights otherwise than those at first; 0 for never. Without such gates
        nothing is converted.
      distribution: "none", "mirrored" over this machine's accelerators, or "multi_worker_mirrored" over the machines
        that the environment variable TF_CONFIG lists.
      seed: Seed of initial weights, shuffles and dropout.
    """

    strategy: Literal["qat", "ptq", "auto"] = "qat"
    untrainable: Literal["calibrate", "fail"] = "calibrate"
    float_epochs: int = 10
    qat_epochs: int = 3
    calibration_examples: int = 300
    batch_size: int = 32
    float_learning_rate: float = 1e-3
    qat_learning_rate: float = 1e-4
    learning_rate_schedule: str = "constant"
    gradient_clip_norm: float = 0.0
    train_steps: int = 0
    eval_steps: int = 0
    early_stopping_patience: int = 0
    early_stopping_metric: str = "val_loss"
    early_stopping_mode: str = "auto"
    freeze_observers_after_steps: int = 0
    freeze_batch_normalization_after_steps: int = 0
    distillation_weight: float = 0.0
    distillation_temperature: float = 1.0
    checkpoint_steps: int = 0
    probe_steps: int = 20
    distribution: str = "none"
    seed: int = 1

    def __post_init__(self) -> None:
        wrong = [
            f"{name}={getattr(self, name)} ({expected})"
            for names, expected, accepts in _RULES
            for name in names
            if not accepts(getattr(self, name))
        ]
        wrong += [
            f"{name}={getattr(self, name)!r} (one of {', '.join(choices)})"
            for name, choices in _CHOICES.items()
            if getattr(self, name) not in choices
        ]
        if self.strategy == "auto" and self.distribution == "multi_worker_mirrored":
            # Each would measure by itself, and one that decides otherwise would leave the rest waiting.
            wrong.append("strategy='auto' with distribution='multi_worker_mirrored' ('none' or 'mirrored')")
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


_POSITIVE = ("float_epochs", "qat_epochs", "calibration_examples", "batch_size")
_COUNTS = (
    "train_steps",
    "eval_steps",
    "early_stopping_patience",
    "freeze_observers_after_steps",
    "freeze_batch_normalization_after_steps",
    "checkpoint_steps",
    "probe_steps",
    "seed",
)
_ABOVE_ZERO = ("float_learning_rate", "qat_learning_rate", "distillation_temperature")
_LARGEST = float("inf")
# Names, what is expected of them, and whether a value is; comparisons are false for a value that is not a number.
_RULES = (
    (_POSITIVE, "at least 1", lambda value: value >= 1),
    (_COUNTS, "at least 0", lambda value: value >= 0),
    (_ABOVE_ZERO, "above 0", lambda value: 0 < value < _LARGEST),
    (("gradient_clip_norm",), "at least 0", lambda value: 0 <= value < _LARGEST),
    (("distillation_weight",), "0 to 1", lambda value: 0 <= value <= 1),
    (("seed",), "below 2**32", lambda value: value < 2**32),
    (
        ("early_stopping_metric",),
        "val_ and the name of a metric",
        lambda value: value.removeprefix("val_") not in ("", value),
    ),
)
_CHOICES = {
    "strategy": ("qat", "ptq", "auto"),
    "untrainable": ("calibrate", "fail"),
    "learning_rate_schedule": ("constant", "cosine"),
    "early_stopping_mode": ("auto", "min", "max"),
    "distribution": ("none", "mirrored", "multi_worker_mirrored"),
}
