"""Two training loops in a row: float, then quantization-aware."""

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.qat.checkpoints import Checkpoints
from components.quantization.qat.compilation import compile_as, refuse_mixed_precision
from components.quantization.qat.distillation import DistilledModel
from components.quantization.qat.distribution import is_chief, is_distributed, make_strategy, worker_dir
from components.quantization.qat.fingerprint import training_fingerprint
from components.quantization.qat.loop import LoopPlan, TrainingLoop
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.progress import Progress
from components.quantization.qat.quantize import quantize_model
from components.quantization.qat.random_state import saveable_randomness
from components.quantization.qat.splits import DatasetFn, SplitSummary, summarize_split, without_autotune
from components.quantization.schemes import QuantizationScheme

_LOGGER = logging.getLogger(__name__)

BuildModel = Callable[[], tf_keras.Model]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModels:
    """The result of a training.

    Attributes:
      float_model: The float model.
      qat_model: Its quantization-aware fine-tuned copy.
      float_metrics: The float model's loss and metrics on the eval split.
      qat_metrics: The same of the other.
    """

    float_model: tf_keras.Model
    qat_model: tf_keras.Model
    float_metrics: dict[str, float]
    qat_metrics: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What both loops of a run share."""

    build_model: BuildModel
    strategy: tf.distribute.Strategy
    train_summary: SplitSummary
    evaluation_summary: SplitSummary
    checkpoint_dir: Path | None
    fingerprint: dict[str, str]


class QuantizationAwareTraining:
    """Float training and quantization-aware fine-tuning of one model on one pair of splits."""

    def __init__(
        self, train: DatasetFn, evaluation: DatasetFn, parameters: TrainingParameters, log_dir: Path | None = None
    ) -> None:
        """Sets up both loops.

        Args:
          train: Gives passes over the train split.
          evaluation: Gives passes over the eval split.
          parameters: The knobs.
          log_dir: Where TensorBoard logs go, in `float` and `qat`; None for no logs.
        """
        self._train = train
        self._evaluation = evaluation
        self._parameters = parameters
        self._log_dir = log_dir
        self._loops = {
            "float": (parameters.float_epochs, parameters.float_learning_rate),
            "qat": (parameters.qat_epochs, parameters.qat_learning_rate),
        }

    def run(
        self,
        build_model: BuildModel,
        scheme: QuantizationScheme,
        base_model: tf_keras.Model | None = None,
        *,
        checkpoint_dir: Path | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> TrainedModels:
        """Trains the float model, unless there is a base model, then its quantized copy.

        With a directory for checkpoints, a run that was killed goes on from the last one, and ends with the same
        weights as one that was not, on the same machine and on any device that computes the same twice; a GPU needs
        tf.config.experimental.enable_op_determinism for that. Random numbers may come from tf_keras's layers, from
        tf.random.Generators that layers hold and from datasets; the state of other ops' is not in a checkpoint.

        Args:
          build_model: Returns a compiled model; its loss, metrics and optimizer serve both loops.
          scheme: The quantization scheme.
          base_model: A trained float model, which takes the place of the first loop.
          checkpoint_dir: Where checkpoints are kept; the same for all attempts of a training, and best for no other.
            Whoever has saved the result deletes it: checkpoints.remove_checkpoints.
          strategy: Made before (distribution.make_strategy); by default it is made now.

        Returns:
          Models outside of any distribution; all workers get the same.

        Raises:
          ValueError: If a split is empty, labels don't match the model, a layer is not in float32, or a loss is not a
            number.
        """
        if strategy is None:
            strategy = make_strategy(self._parameters.distribution, self._parameters.batch_size)
        # Layer names count up within a process and reach the exported file; random states would leak in likewise.
        tf_keras.backend.clear_session()
        leave_libraries_alone()
        with saveable_randomness():
            with strategy.scope():
                tf_keras.utils.set_random_seed(self._parameters.seed)
                model = _built(build_model)
                for candidate in (model, *([base_model] if base_model is not None else [])):
                    refuse_mixed_precision(candidate)
                run = self._plan_run(build_model, scheme, model, base_model, checkpoint_dir, strategy)
                if base_model is None:
                    self._fit(run, "float", model)
                float_model = base_model or model
                tf_keras.utils.set_random_seed(self._parameters.seed)
                qat_model = quantize_model(float_model, scheme)
                self._fit(run, "qat", qat_model, teacher=float_model)
            if is_distributed(strategy):
                float_model, qat_model = self._undistributed(run, scheme, base_model, float_model, qat_model)
            elif base_model is not None:
                self._compile(run, "float", base_model)
            return TrainedModels(
                float_model=float_model,
                qat_model=qat_model,
                float_metrics=self._evaluate(run, "float", float_model),
                qat_metrics=self._evaluate(run, "qat", qat_model),
            )

    def _plan_run(
        self,
        build_model: BuildModel,
        scheme: QuantizationScheme,
        model: tf_keras.Model,
        base_model: tf_keras.Model | None,
        checkpoint_dir: Path | None,
        strategy: tf.distribute.Strategy,
    ) -> _Run:
        """Reads both splits once, and sums up what the run begins from."""
        train = summarize_split("train", self._train, model)
        evaluation = summarize_split("eval", self._evaluation, model)
        models = (model,) if base_model is None else (model, base_model)
        replicas = strategy.num_replicas_in_sync
        return _Run(
            build_model=build_model,
            strategy=strategy,
            train_summary=train,
            evaluation_summary=evaluation,
            checkpoint_dir=worker_dir(checkpoint_dir, strategy),
            fingerprint=training_fingerprint(self._parameters, scheme, models, (train, evaluation), replicas),
        )

    def _compile(self, run: _Run, loop: str, model: tf_keras.Model) -> None:
        epochs, learning_rate = self._loops[loop]
        steps = epochs * (self._parameters.train_steps or run.train_summary.batches)
        compile_as(model, run.build_model(), learning_rate, steps, self._parameters)

    def _fit(self, run: _Run, loop: str, model: tf_keras.Model, teacher: tf_keras.Model | None = None) -> None:
        epochs, learning_rate = self._loops[loop]
        knobs, is_qat = self._parameters, loop == "qat"
        self._compile(run, loop, model)
        trainee = model
        if teacher is not None and knobs.distillation_weight:
            weight, temperature = knobs.distillation_weight, knobs.distillation_temperature
            trainee = DistilledModel(model, teacher, weight, temperature, model.loss)
            self._compile(run, loop, trainee)
        plan = LoopPlan(
            name=loop,
            epochs=epochs,
            learning_rate=learning_rate,
            parameters=knobs,
            freeze_observers_after=knobs.freeze_observers_after_steps if is_qat else 0,
            freeze_normalization_after=knobs.freeze_batch_normalization_after_steps if is_qat else 0,
            seeds=(knobs.seed, list(self._loops).index(loop)),
            train=self._train,
            train_summary=run.train_summary,
            validation=run.strategy.experimental_distribute_dataset(without_autotune(self._evaluation(None))),
            validation_steps=self._evaluation_steps(run),
        )
        log_dir = self._log_dir / loop if self._log_dir is not None and is_chief(run.strategy) else None
        directory = run.checkpoint_dir
        checkpoints = Checkpoints(directory, loop, run.fingerprint) if directory is not None else None
        _LOGGER.info("%s training: %d epochs, learning rate %g", loop, epochs, learning_rate)
        TrainingLoop(plan, trainee, run.strategy, Progress(loop, trainee, log_dir), checkpoints).run()
        model.optimizer = trainee.optimizer

    def _undistributed(
        self,
        run: _Run,
        scheme: QuantizationScheme,
        base_model: tf_keras.Model | None,
        float_model: tf_keras.Model,
        qat_model: tf_keras.Model,
    ) -> tuple[tf_keras.Model, tf_keras.Model]:
        """Copies without a strategy: to save and convert them takes no other workers."""
        tf_keras.backend.reset_uids()
        plain = base_model
        if plain is None:
            plain = run.build_model()
            plain.set_weights(float_model.get_weights())
        quantized = quantize_model(plain, scheme)
        quantized.set_weights(qat_model.get_weights())
        self._compile(run, "float", plain)
        self._compile(run, "qat", quantized)
        return plain, quantized

    def _evaluate(self, run: _Run, loop: str, model: tf_keras.Model) -> dict[str, float]:
        dataset, steps = without_autotune(self._evaluation(None)), self._evaluation_steps(run)
        metrics = model.evaluate(dataset, steps=steps, return_dict=True, verbose=0)
        values = {name: float(value) for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise ValueError(f"{loop} evaluation: {', '.join(broken)} is not a number; look for NaN in the eval split")
        return values

    def _evaluation_steps(self, run: _Run) -> int:
        batches = run.evaluation_summary.batches
        return min(self._parameters.eval_steps or batches, batches)


def _built(build_model: BuildModel) -> tf_keras.Model:
    model = build_model()
    if not isinstance(model, tf_keras.Model) or not getattr(model, "_is_compiled", False):
        raise ValueError("build_model: expected a compiled tf_keras.Model; call model.compile(loss=..., metrics=...)")
    return model
