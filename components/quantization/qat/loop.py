"""One training loop: steps, epochs, evaluation, checkpoints. Killed anywhere, it goes on as if nothing had happened."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.qat.checkpoints import (
    Arrays,
    Checkpoints,
    TrainingState,
    read_variables,
    write_variables,
)
from components.quantization.qat.compilation import build_optimizer
from components.quantization.qat.distribution import least_over_workers, outside_of_distribution
from components.quantization.qat.early_stopping import EarlyStopping
from components.quantization.qat.freezing import freeze_observers, require_finite_ranges, trainable_normalizations
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.progress import Progress
from components.quantization.qat.random_state import random_states
from components.quantization.qat.splits import DatasetFn, SplitSummary, TrainingPasses

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoopPlan:
    """What a loop does.

    Attributes:
      name: What logs, errors and checkpoints call it.
      epochs: At most so many epochs.
      learning_rate: Where the learning rate begins.
      parameters: The knobs that serve all loops.
      freeze_observers_after: Step after which ranges stay; 0 for never.
      freeze_normalization_after: Step after which batch normalizations stay; 0 for never.
      seeds: What the seeds of its passes are made from.
      train: Gives passes over the train split.
      train_summary: That split.
      validation: The eval split, distributed.
      validation_steps: Steps of an evaluation.
      probe: Called once in the loop, outside of any distribution; must leave the model alone. None for nothing.
      probe_after: Step after which it is.
    """

    name: str
    epochs: int
    learning_rate: float
    parameters: TrainingParameters
    freeze_observers_after: int
    freeze_normalization_after: int
    seeds: tuple[int, ...]
    train: DatasetFn
    train_summary: SplitSummary
    validation: tf.data.Dataset
    validation_steps: int
    probe: Callable[[], None] | None = None
    probe_after: int = 0

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return self.parameters.train_steps or self.train_summary.batches


class TrainingLoop:
    """Trains a compiled model, as `fit` does, from where an attempt before left off.

    `fit` runs the same step function, but it can only begin an epoch, not go on within one.
    """

    def __init__(
        self,
        plan: LoopPlan,
        model: tf_keras.Model,
        strategy: tf.distribute.Strategy,
        progress: Progress,
        checkpoints: Checkpoints | None,
    ) -> None:
        """Makes ready.

        Args:
          plan: What to do.
          model: Made and compiled in the strategy's scope.
          strategy: The strategy.
          progress: Told what happens.
          checkpoints: Where to keep and find the loop's state; None to keep none.
        """
        self._plan = plan
        self._model = model
        self._strategy = strategy
        self._progress = progress
        self._checkpoints = checkpoints
        self._early_stopping = EarlyStopping(plan.parameters)
        self._state = TrainingState()
        self._best: Arrays = []

    def run(self) -> TrainingState:
        """Trains to the end; returns where that is.

        Raises:
          ValueError: If the loss is not a number, a pass is too short or there is no metric to stop early by.
        """
        plan = self._plan
        with self._strategy.scope():
            self._variables = self._all_variables()
            self._restore()
            state = self._state
            self._progress.begin(state, plan.epochs, plan.epoch_steps, plan.train_summary.batch_examples)
            if not state.finished:
                self._train()
        last = {name: round(values[-1], 5) for name, values in state.history.items()}
        _LOGGER.info("%s training ended after %d epochs: %s", plan.name, state.epoch, last)
        return state

    def _train(self) -> None:
        state, plan = self._state, self._plan
        self._normalizations = trainable_normalizations(self._model)
        if 0 < plan.freeze_normalization_after <= state.total_steps:
            self._train_normalizations(False)
        self._train_step = self._model.make_train_function()
        self._passes = TrainingPasses(plan.train, plan.seeds, self._strategy, state.passes, state.batch)
        while not state.finished:
            self._run_epoch()
            self._end_epoch()
        self._train_normalizations(True)

    def _train_normalizations(self, trainable: bool) -> None:
        for layer in self._normalizations:
            layer.trainable = trainable

    def _all_variables(self) -> dict[str, list[Any]]:
        """All that a step changes. Optimizers and metrics make their variables in the first step otherwise."""
        model = self._model
        metrics = model.evaluate(self._plan.validation, steps=1, return_dict=True, verbose=0)
        self._early_stopping.check_metric(metrics)
        return {
            "model": list(model.variables),
            "optimizer": build_optimizer(model),
            "metrics": [variable for metric in model.metrics for variable in metric.variables],
            "random": random_states(model),
        }

    def _restore(self) -> None:
        if self._checkpoints is None:
            return
        number = least_over_workers(self._strategy, self._checkpoints.newest())
        self._checkpoints.discard_after(number)
        if not number:
            return
        self._state, groups = self._checkpoints.load(number)
        for name, variables in self._variables.items():
            write_variables(variables, groups.get(name, []), self._strategy)
        self._best = groups.get("best", [])
        state = self._state
        _LOGGER.info("%s training goes on after epoch %d, step %d", self._plan.name, state.epoch, state.step)

    def _save(self) -> None:
        if self._checkpoints is None:
            return
        groups = {name: read_variables(variables, self._strategy) for name, variables in self._variables.items()}
        self._checkpoints.save(self._state, {**groups, "best": self._best})

    def _run_epoch(self) -> None:
        """The steps that the epoch has left.

        A step without a batch would fail, but count as a step in the optimizer; so none is tried.
        """
        state, batches = self._state, self._plan.train_summary.batches
        if not state.step:
            self._model.reset_metrics()
        while state.step < self._plan.epoch_steps:
            if state.batch == batches:
                self._passes.next_pass()
                state.passes, state.batch = self._passes.number, 0
            try:
                metrics = self._train_step(self._passes.iterator)
            except (StopIteration, tf.errors.OutOfRangeError) as error:
                raise ValueError(
                    f"{self._plan.name} training: a shuffled pass over the train split ended after {state.batch}"
                    f" batches, an unshuffled one had {batches}; let input_fn give as many with a seed as without"
                ) from error
            self._after_step(metrics)

    def _after_step(self, metrics: Mapping[str, tf.Tensor]) -> None:
        state, plan = self._state, self._plan
        state.step += 1
        state.total_steps += 1
        state.batch += 1
        if state.total_steps == plan.freeze_observers_after:
            freeze_observers(self._model)
        if state.total_steps == plan.freeze_normalization_after:
            self._train_normalizations(False)
            self._train_step = self._model.make_train_function(force=True)
        if plan.probe is not None and state.total_steps == plan.probe_after:
            outside_of_distribution(self._strategy, plan.probe)
        if plan.parameters.checkpoint_steps and not state.total_steps % plan.parameters.checkpoint_steps:
            self._check_loss(self._model.get_metrics_result())
            self._save()
        if self._progress.is_due(state):
            self._progress.report_step(state, {name: float(value) for name, value in metrics.items()})

    def _end_epoch(self) -> None:
        state, plan = self._state, self._plan
        rate = self._progress.steps_per_second(state)
        metrics = {name: float(value) for name, value in self._model.get_metrics_result().items()}
        require_finite_ranges(self._model, f"{plan.name} training, epoch {state.epoch + 1}")
        self._check_loss(metrics)
        evaluation = self._model.evaluate(plan.validation, steps=plan.validation_steps, return_dict=True, verbose=0)
        metrics.update({f"val_{name}": float(value) for name, value in evaluation.items()})
        for name, value in metrics.items():
            state.history.setdefault(name, []).append(value)
        state.epoch += 1
        state.step = 0
        if self._early_stopping.is_best(state, metrics):
            self._best = read_variables(self._variables["model"], self._strategy)
        state.finished = state.epoch >= plan.epochs or self._early_stopping.is_over(state)
        self._progress.report_epoch(state, metrics, rate)
        if state.finished:
            self._take_result()
        self._save()
        self._progress.mark(state)

    def _take_result(self) -> None:
        """The best epoch's weights as they were measured, or the last's, averaged if the optimizer does that."""
        if self._best:
            if self._state.best_epoch < self._state.epoch:
                write_variables(self._variables["model"], self._best, self._strategy)
                _LOGGER.info("%s training: takes the weights of epoch %d", self._plan.name, self._state.best_epoch)
            return
        finalize = getattr(self._model.optimizer, "finalize_variable_values", None)
        if finalize is not None:
            finalize(self._model.trainable_variables)

    def _check_loss(self, metrics: Mapping[str, Any]) -> None:
        if not math.isfinite(float(metrics["loss"])):
            raise ValueError(
                f"{self._plan.name} training stopped in epoch {self._state.epoch + 1} because the loss is not a number;"
                f" lower the learning rate (now {self._plan.learning_rate:g}) or look for NaN in the features"
            )
