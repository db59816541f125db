"""What a loop tells while it runs: lines in the log, scalars for TensorBoard, and the history of its epochs."""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.qat.checkpoints import TrainingState
from components.quantization.qat.freezing import quantizers

_LOGGER = logging.getLogger(__name__)

HISTORY_FILE = "history.json"
"""Metrics of each epoch by name, as lists; those on the eval split begin with val_."""

_INTERVAL_S = 10.0


class Progress:
    """Reports about one loop: a line every ten seconds and one per epoch, the same to TensorBoard and `HISTORY_FILE`.

    TensorBoard gets `epoch/...` by epoch; `step/...`, `examples_per_second` and the ends of each quantizer's range,
    `range/<quantizer>/minimum` and `maximum`, by step.
    """

    def __init__(self, loop: str, model: tf_keras.Model, log_dir: Path | None) -> None:
        """Makes ready to report.

        Args:
          loop: What the log calls the loop.
          model: The model in training.
          log_dir: Where TensorBoard's files and the history go; None for none.
        """
        self._loop = loop
        self._model = model
        self._log_dir = log_dir
        self._writer = None if log_dir is None else tf.summary.create_file_writer(str(log_dir))
        self._epochs = 0
        self._epoch_steps = 0
        self._batch_examples = 0.0
        self._marked_step = 0
        self._marked_at = 0.0
        self._due = math.inf
        # The first step traces the model: it says nothing about the others.
        self._first_step = True

    def begin(self, state: TrainingState, epochs: int, epoch_steps: int, batch_examples: float) -> None:
        """The loop begins or goes on; what it did before goes to TensorBoard again, whose files may be gone.

        Args:
          state: Where it stands.
          epochs: Epochs of the loop.
          epoch_steps: Steps of an epoch.
          batch_examples: Examples of a step, on average.
        """
        self._epochs, self._epoch_steps, self._batch_examples = epochs, epoch_steps, batch_examples
        for epoch in range(state.epoch):
            self._write_epoch(epoch + 1, {name: values[epoch] for name, values in state.history.items()})
        self.mark(state)

    def mark(self, state: TrainingState) -> None:
        """Begins to measure the time of steps, after something that is none of it."""
        self._marked_step = state.total_steps
        self._marked_at = time.monotonic()
        self._due = self._marked_at + _INTERVAL_S

    def is_due(self, state: TrainingState) -> bool:
        """Returns whether it is time for a line; to be asked after each step."""
        if self._first_step:
            self._first_step = False
            self.mark(state)
        return time.monotonic() >= self._due

    def steps_per_second(self, state: TrainingState) -> float:
        """Returns the rate since the last mark, 0 if there was no step."""
        return (state.total_steps - self._marked_step) / max(time.monotonic() - self._marked_at, 1e-9)

    def report_step(self, state: TrainingState, metrics: Mapping[str, float]) -> None:
        """A line within an epoch."""
        rate = self.steps_per_second(state)
        _LOGGER.info("%s training: %s", self._loop, self._line(state, state.epoch + 1, state.step, metrics, rate))
        self._write_step(state.total_steps, {f"step/{name}": value for name, value in metrics.items()}, rate)
        self.mark(state)

    def report_epoch(self, state: TrainingState, metrics: Mapping[str, float], rate: float) -> None:
        """The line of an epoch that just ended, `rate` of its last steps in 1/s."""
        _LOGGER.info("%s training: %s", self._loop, self._line(state, state.epoch, self._epoch_steps, metrics, rate))
        self._write_epoch(state.epoch, metrics)
        if self._log_dir is not None:
            (self._log_dir / HISTORY_FILE).write_text(json.dumps(state.history, indent=1, sort_keys=True) + "\n")
        self._write_step(state.total_steps, {}, rate)

    def _line(self, state: TrainingState, epoch: int, step: int, metrics: Mapping[str, float], rate: float) -> str:
        parts = [f"epoch {epoch}/{self._epochs}", f"step {step}/{self._epoch_steps}"]
        parts += [f"{name} {value:.5g}" for name, value in metrics.items()]
        if rate:
            left = self._epochs * self._epoch_steps - state.total_steps
            parts += [f"{rate * self._batch_examples:.4g} examples/s", f"{_duration(left / rate)} left at most"]
        return ", ".join(parts)

    def _write_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._write(epoch, {f"epoch/{name}": value for name, value in metrics.items()})

    def _write_step(self, step: int, values: Mapping[str, float], rate: float) -> None:
        scalars: dict[str, Any] = dict(values)
        if rate:  # not known at the first step, nor where no step came after the last line
            scalars["examples_per_second"] = rate * self._batch_examples
        for quantizer in quantizers(self._model) if self._writer is not None else ():
            scalars[f"range/{quantizer.name}/minimum"] = quantizer.minimum
            scalars[f"range/{quantizer.name}/maximum"] = quantizer.maximum
        self._write(step, scalars)

    def _write(self, step: int, scalars: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        with self._writer.as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
        self._writer.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
