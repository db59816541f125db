"""What all loops of one training share: data, knobs, distribution, checkpoints and logs."""

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.calibration_set import BY_POSITION, CalibrationSet, fingerprint_of_arrays
from components.quantization.qat.checkpoints import Checkpoints
from components.quantization.qat.compilation import compile_as
from components.quantization.qat.distillation import DistilledModel
from components.quantization.qat.distribution import is_chief, is_distributed, worker_dir
from components.quantization.qat.fingerprint import training_fingerprint
from components.quantization.qat.loop import LoopPlan, TrainingLoop
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.progress import Progress
from components.quantization.qat.quantize import quantize_model
from components.quantization.qat.splits import (
    DatasetFn,
    dense_features,
    sample_batches,
    summarize_split,
    without_autotune,
    without_small_batches,
)
from components.quantization.qat.user_model import trainable_model
from components.quantization.schemes import QuantizationScheme

_LOGGER = logging.getLogger(__name__)

BuildModel = Callable[[], tf_keras.Model]

FLOAT = "float"
# The loops of a training; the place of each is part of its seeds.
_LOOPS = (FLOAT, "qat", "selective", "mixed")


class TrainingSession:
    """One training of one model on one pair of splits, from the float model to any number of quantized ones.

    Attributes:
      parameters: The knobs.
      strategy: How loops are distributed.
    """

    def __init__(
        self,
        train: DatasetFn,
        evaluation: DatasetFn,
        parameters: TrainingParameters,
        build_model: BuildModel,
        strategy: tf.distribute.Strategy,
        log_dir: Path | None,
    ) -> None:
        """Sets up a session; `begin` reads the data.

        Args:
          train: Gives passes over the train split.
          evaluation: Gives passes over the eval split.
          parameters: The knobs.
          build_model: Returns a compiled model; its loss, metrics and optimizer serve all loops.
          strategy: How loops are distributed.
          log_dir: Where TensorBoard logs go, in a directory for each loop; None for no logs.
        """
        self.parameters = parameters
        self.strategy = strategy
        self._train = train
        self._evaluation = evaluation
        self._build_model = build_model
        self._log_dir = log_dir
        self._calibration: list[dict[str, npt.NDArray[Any]]] = []

    def build_model(self) -> tf_keras.Model:
        """Returns a new model as the user compiles it, functional and of tf_keras.

        Raises:
          ValueError: If it is no compiled Keras model, or cannot be made functional.
        """
        return trainable_model(self._build_model())

    def begin(
        self, models: tuple[tf_keras.Model, ...], scheme: QuantizationScheme, checkpoint_dir: Path | None
    ) -> None:
        """Reads both splits once, and sums up what the training begins from.

        Args:
          models: The untrained model, then those that it takes weights from.
          scheme: The scheme.
          checkpoint_dir: Where checkpoints are kept; None to keep none.

        Raises:
          ValueError: If a split is empty or does not fit the model.
        """
        replicas = self.strategy.num_replicas_in_sync
        self._train_summary = summarize_split("train", self._train, models[0], replicas)
        summary = summarize_split("eval", self._evaluation, models[0], replicas)
        batches, most = summary.batches + summary.left_out, self.parameters.eval_steps
        self._evaluation_steps = min(most or batches, batches)
        self._validation_steps = min(most or batches, summary.batches)
        splits = (self._train_summary, summary)
        self._checkpoint_dir = worker_dir(checkpoint_dir, self.strategy)
        self._fingerprint = training_fingerprint(self.parameters, scheme, models, splits, replicas)

    def compile(self, loop: str, model: tf_keras.Model) -> None:
        """Compiles a model as the user's is, for a loop."""
        epochs, learning_rate = self._length(loop)
        steps = epochs * (self.parameters.train_steps or self._train_summary.batches)
        compile_as(model, self.build_model(), learning_rate, steps, self.parameters)

    def fit(
        self,
        loop: str,
        model: tf_keras.Model,
        teacher: tf_keras.Model | None = None,
        probe: Callable[[], None] | None = None,
    ) -> None:
        """Trains a model, from where an attempt before left off; call it in the strategy's scope.

        Args:
          loop: "float", "qat", "selective" or "mixed".
          model: The model; compiled here.
          teacher: What it is distilled from, if the knobs say so.
          probe: Called after as many steps as the knobs say; None for nothing.
        """
        (epochs, learning_rate), knobs, is_float = self._length(loop), self.parameters, loop == FLOAT
        self.compile(loop, model)
        trainee = model
        if teacher is not None and knobs.distillation_weight:
            weight, temperature = knobs.distillation_weight, knobs.distillation_temperature
            trainee = DistilledModel(model, teacher, weight, temperature, model.loss)
            self.compile(loop, trainee)
        plan = LoopPlan(
            name=loop,
            epochs=epochs,
            learning_rate=learning_rate,
            parameters=knobs,
            freeze_observers_after=0 if is_float else knobs.freeze_observers_after_steps,
            freeze_normalization_after=0 if is_float else knobs.freeze_batch_normalization_after_steps,
            seeds=(knobs.seed, _LOOPS.index(loop)),
            train=self._train,
            train_summary=self._train_summary,
            validation=self._validation(),
            validation_steps=self._validation_steps,
            probe=probe,
            probe_after=knobs.probe_steps,
        )
        log_dir = self._log_dir / loop if self._log_dir is not None and is_chief(self.strategy) else None
        directory = self._checkpoint_dir
        checkpoints = Checkpoints(directory, loop, self._fingerprint) if directory is not None else None
        _LOGGER.info("%s training: %d epochs, learning rate %g", loop, epochs, learning_rate)
        TrainingLoop(plan, trainee, self.strategy, Progress(loop, trainee, log_dir), checkpoints).run()
        model.optimizer = trainee.optimizer

    def undistributed(self, model: tf_keras.Model, base_model: tf_keras.Model | None) -> tf_keras.Model:
        """Returns the trained float model, compiled and outside of any distribution.

        Args:
          model: The trained float model.
          base_model: The same, where it was not trained here.
        """
        if base_model is None and not is_distributed(self.strategy):
            return model
        plain = base_model
        if plain is None:
            tf_keras.backend.reset_uids()  # for the same names
            plain = self.build_model()
            plain.set_weights(model.get_weights())
        self.compile(FLOAT, plain)
        return plain

    def undistributed_copy(
        self, loop: str, model: tf_keras.Model, plain: tf_keras.Model, scheme: QuantizationScheme
    ) -> tf_keras.Model:
        """Returns a trained quantized model outside of any distribution: to save and convert it takes no workers.

        Args:
          loop: The loop that trained it.
          model: The quantized model.
          plain: The float model, undistributed.
          scheme: The scheme.
        """
        if not is_distributed(self.strategy):
            return model
        copy = self.quantized(plain, scheme)
        copy.set_weights(model.get_weights())
        self.compile(loop, copy)
        return copy

    def quantized(self, model: tf_keras.Model, scheme: QuantizationScheme) -> tf_keras.Model:
        """Returns a quantized copy of a float model, neither trained nor compiled."""
        return quantize_model(model, scheme, self.parameters.untrainable)

    def evaluate(self, loop: str, model: tf_keras.Model) -> dict[str, float]:
        """Returns loss and metrics of a compiled model on the eval split.

        Raises:
          ValueError: If one is not a number.
        """
        dataset = without_autotune(self._evaluation(None))
        metrics = model.evaluate(dataset, steps=self._evaluation_steps, return_dict=True, verbose=0)
        values = {name: float(value) for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise ValueError(f"{loop} evaluation: {', '.join(broken)} is not a number; look for NaN in the eval split")
        return values

    def metric_names(self, model: tf_keras.Model) -> tuple[str, ...]:
        """Returns the names of loss and metrics of a compiled model; call it in the strategy's scope."""
        return tuple(model.evaluate(self._validation(), steps=1, return_dict=True, verbose=0))

    def evaluation_batches(self) -> Iterator[tuple[Any, ...]]:
        """Yields the batches of an evaluation: features by name, labels and perhaps weights, as arrays."""
        batches: Iterator[tuple[Any, ...]] = self._evaluation(None).take(self._evaluation_steps).as_numpy_iterator()
        return batches

    def calibration_batches(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Returns examples from all over the train split, features by name in batches: as many as the knobs say.

        They are drawn by the seed, since the first ones of a split may be all of one class.
        """
        if not self._calibration:
            knobs = self.parameters
            self._calibration = sample_batches(
                self._train, self._train_summary.examples, knobs.calibration_examples, knobs.batch_size, knobs.seed
            )
        return self._calibration

    def calibration_set(self) -> CalibrationSet:
        """Returns which examples `calibration_batches` has."""
        batches = self.calibration_batches()
        return CalibrationSet(
            examples=sum(len(next(iter(batch.values()))) for batch in batches),
            chosen=BY_POSITION,
            seed=self.parameters.seed,
            sha256=fingerprint_of_arrays(batches),
        )

    def first_batch(self) -> dict[str, npt.NDArray[Any]]:
        """Returns the features of the first batch of the train split by name."""
        features, *_ = next(iter(self._train(None).as_numpy_iterator()))
        return dense_features(features)

    def resumes(self) -> bool:
        """Whether an attempt before left a checkpoint of this training."""
        directory = self._checkpoint_dir
        return directory is not None and any(
            Checkpoints(directory, loop, self._fingerprint).newest() for loop in _LOOPS
        )

    def _validation(self) -> Any:
        """The eval split, shared out."""
        dataset = without_small_batches(without_autotune(self._evaluation(None)), self.strategy)
        return self.strategy.experimental_distribute_dataset(dataset)

    def _length(self, loop: str) -> tuple[int, float]:
        """Epochs and learning rate of a loop."""
        knobs = self.parameters
        if loop == FLOAT:
            return knobs.float_epochs, knobs.float_learning_rate
        return knobs.qat_epochs, knobs.qat_learning_rate
