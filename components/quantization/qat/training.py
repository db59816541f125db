"""The two training loops: float, then quantization-aware."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.quantize import quantize_model
from components.quantization.schemes import QuantizationScheme

_LOGGER = logging.getLogger(__name__)

# Returns one pass over a split, as batches of (features by name, label); the argument is the seed of its shuffle,
# None for no shuffle.
DatasetFn = Callable[[int | None], tf.data.Dataset]


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

    def run(
        self,
        build_model: Callable[[], tf_keras.Model],
        scheme: QuantizationScheme,
        base_model: tf_keras.Model | None = None,
    ) -> TrainedModels:
        """Trains the float model, unless there is a base model, then its quantized copy.

        Args:
          build_model: Returns a compiled model; its loss, metrics and optimizer serve both loops.
          scheme: The quantization scheme.
          base_model: A trained float model, which takes the place of the first loop.

        Raises:
          ValueError: If a split is empty, labels don't match the model, or a loss is not a number.
        """
        # Layer names count up within a process and reach the exported file; random states would leak in likewise.
        tf_keras.backend.clear_session()
        leave_libraries_alone()
        tf_keras.utils.set_random_seed(self._parameters.seed)
        model = build_model()
        if not isinstance(model, tf_keras.Model) or not getattr(model, "_is_compiled", False):
            raise ValueError(
                "build_model: expected a compiled tf_keras.Model; call model.compile(loss=..., metrics=...)"
            )
        if base_model is not None:
            model = base_model
        self._compile(model, build_model, self._parameters.float_learning_rate)
        self._check_splits(model)
        if base_model is None:
            self._fit("float", model, self._parameters.float_epochs)
        quantized = quantize_model(model, scheme)
        self._compile(quantized, build_model, self._parameters.qat_learning_rate)
        self._fit("qat", quantized, self._parameters.qat_epochs)
        return TrainedModels(
            float_model=model,
            qat_model=quantized,
            float_metrics=self._evaluate("float", model),
            qat_metrics=self._evaluate("qat", quantized),
        )

    def _check_splits(self, model: tf_keras.Model) -> None:
        """Reads both splits once: they must have examples, and class labels that the model has outputs for."""
        classes = _class_count(model)
        for split, dataset_fn in (("train", self._train), ("eval", self._evaluation)):
            examples, lowest, highest = 0, math.inf, -math.inf
            for features, label, *_ in dataset_fn(None).as_numpy_iterator():
                if not examples:
                    _check_features(model, features)
                labels = tf.nest.flatten(label)
                examples += len(labels[0])
                lowest = min(lowest, *(np.min(values) for values in labels))
                highest = max(highest, *(np.max(values) for values in labels))
            if not examples:
                raise ValueError(f"the {split} split has no examples; check the input of the ExampleGen")
            if classes is not None and (lowest < 0 or highest >= classes):
                raise ValueError(
                    f"labels of the {split} split run from {lowest:g} to {highest:g}, but the model has {classes}"
                    f" outputs, for labels 0 to {classes - 1}; build the model with one output per class"
                )
            _LOGGER.info("%s split: %d examples", split, examples)

    def _compile(self, model: tf_keras.Model, build_model: Callable[[], tf_keras.Model], learning_rate: float) -> None:
        """Compiles as build_model does, with a learning rate of ours.

        Loss, metrics and optimizer are objects with a state, and may be the user's own functions, which a serialized
        configuration would lose: each model gets those of a new build.
        """
        arguments = dict(build_model()._compile_config.config)
        optimizer = tf_keras.optimizers.get(arguments["optimizer"])
        settings = {**optimizer.get_config(), "learning_rate": learning_rate}
        model.compile(**{**arguments, "optimizer": type(optimizer).from_config(settings)})

    def _fit(self, phase: str, model: tf_keras.Model, epochs: int) -> None:
        learning_rate = float(model.optimizer.learning_rate)
        _LOGGER.info("%s training: %d epochs, learning rate %g", phase, epochs, learning_rate)
        callbacks = [tf_keras.callbacks.TerminateOnNaN()]
        patience = self._parameters.early_stopping_patience
        if patience:
            callbacks.append(tf_keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True, verbose=0))
        if self._log_dir is not None:
            callbacks.append(tf_keras.callbacks.TensorBoard(self._log_dir / phase, write_graph=False))
        history = model.fit(
            self._repeated(self._train),
            steps_per_epoch=self._parameters.train_steps or None,
            epochs=epochs,
            validation_data=_without_autotune(self._evaluation(None)),
            validation_steps=self._parameters.eval_steps or None,
            callbacks=callbacks,
            verbose=0,
        ).history
        losses = history["loss"]
        if not all(math.isfinite(loss) for loss in losses):
            raise ValueError(
                f"{phase} training stopped in epoch {len(losses)} because the loss is not a number; lower the learning"
                f" rate (now {learning_rate:g}) or look for NaN in the features"
            )
        _LOGGER.info("%s training ended: %s", phase, {name: round(values[-1], 5) for name, values in history.items()})

    def _repeated(self, dataset_fn: DatasetFn) -> tf.data.Dataset:
        """The split shuffled anew in each epoch; endless where the steps of an epoch are set."""
        dataset = dataset_fn(self._parameters.seed)
        return _without_autotune(dataset.repeat() if self._parameters.train_steps else dataset)

    def _evaluate(self, phase: str, model: tf_keras.Model) -> dict[str, float]:
        steps = self._parameters.eval_steps or None
        metrics = model.evaluate(_without_autotune(self._evaluation(None)), steps=steps, return_dict=True, verbose=0)
        values = {name: float(value) for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise ValueError(f"{phase} evaluation: {', '.join(broken)} is not a number; look for NaN in the eval split")
        return values


def _class_count(model: tf_keras.Model) -> int | None:
    """Number of classes, where the loss says that labels are class indices."""
    sparse = "sparse_categorical_crossentropy"
    loss = model.loss
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    return int(model.output_shape[-1]) if name == sparse and len(model.outputs) == 1 else None


def _check_features(model: tf_keras.Model, features: Mapping[str, Any]) -> None:
    missing = sorted(set(model.input_names) - set(features))
    if missing:
        raise ValueError(
            f"the model's inputs {missing} are no features; there are {sorted(features)}; name the model's inputs after"
            " transformed features"
        )


def _without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Autotune stalls the end of short epochs by up to seconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.with_options(options)
