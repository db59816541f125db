"""A training: a float model, then an integer one's original, by fine-tuning or without."""

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
import tf_keras

from components.quantization.agreement import AGREEMENT, EXAMPLE_COUNT
from components.quantization.autograph import leave_libraries_alone
from components.quantization.calibration_set import CalibrationSet
from components.quantization.qat.compilation import refuse_mixed_precision
from components.quantization.qat.distribution import is_distributed, make_strategy
from components.quantization.qat.ladder import Climbed, Ladder, LadderOptions, Receipt, Rung
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.plan import QuantizationPlan, plan
from components.quantization.qat.preflight import PlannedConversion, preflight, undisturbed
from components.quantization.qat.random_state import saveable_randomness
from components.quantization.qat.session import FLOAT, BuildModel, TrainingSession
from components.quantization.qat.splits import DatasetFn
from components.quantization.qat.warm_start import WarmStart, take_weights
from components.quantization.schemes import QuantizationScheme

_LOGGER = logging.getLogger(__name__)

# The rungs whose ranges, or most of them, are from a few examples.
_CALIBRATED: tuple[Rung, ...] = ("ptq", "selective")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModels:
    """The result of a training.

    Attributes:
      float_model: The float model.
      quantized_model: Its quantized copy, with fake quantization and known ranges.
      rung: How that was made: "ptq", "selective", "qat" or "mixed".
      scheme: Its scheme, which is the one asked for except behind "mixed".
      float_metrics: The float model's loss and metrics on the eval split.
      quantized_metrics: The same of the other, with fake quantization.
      receipts: What each rung cost and brought, with strategy "auto"; else empty.
      plan: What quantization does to each layer, made before anything was trained, by the scheme asked for.
      warm_start: Which layers began with weights of an earlier model; None without one.
      calibration_set: Which examples its ranges are from, or were before some layers were trained on; None if all
        ranges were trained.
    """

    float_model: tf_keras.Model
    quantized_model: tf_keras.Model
    rung: Rung
    scheme: QuantizationScheme
    float_metrics: dict[str, float]
    quantized_metrics: dict[str, float]
    plan: QuantizationPlan
    receipts: tuple[Receipt, ...] = ()
    warm_start: WarmStart | None = None
    calibration_set: CalibrationSet | None = None


class QuantizationAwareTraining:
    """Float training and quantization of one model on one pair of splits."""

    def __init__(
        self, train: DatasetFn, evaluation: DatasetFn, parameters: TrainingParameters, log_dir: Path | None = None
    ) -> None:
        """Sets up the training.

        Args:
          train: Gives passes over the train split.
          evaluation: Gives passes over the eval split.
          parameters: The knobs.
          log_dir: Where TensorBoard logs go, in a directory for each loop; None for no logs.
        """
        self._train = train
        self._evaluation = evaluation
        self._parameters = parameters
        self._log_dir = log_dir

    def run(
        self,
        build_model: BuildModel,
        scheme: QuantizationScheme,
        base_model: tf_keras.Model | None = None,
        *,
        warm_start_model: tf_keras.Model | None = None,
        ladder: LadderOptions | None = None,
        checkpoint_dir: Path | None = None,
        strategy: tf.distribute.Strategy | None = None,
        conversions: Sequence[PlannedConversion] = (),
    ) -> TrainedModels:
        """Trains the float model, unless there is a base model, then quantizes it as the knob `strategy` says.

        With a directory for checkpoints, a run that was killed goes on from the last one, and ends with the same
        weights as one that was not, on the same machine and on any device that computes the same twice; a GPU needs
        tf.config.experimental.enable_op_determinism for that. Random numbers may come from tf_keras's layers, from
        tf.random.Generators that layers hold and from datasets; the state of other ops' is not in a checkpoint.

        Args:
          build_model: Returns a compiled Keras model, see `user_model.trainable_model`; its loss, metrics and
            optimizer serve all loops.
          scheme: The quantization scheme.
          base_model: A trained float model, which takes the place of float training.
          warm_start_model: An earlier float model, of whose weights float training begins with all that fit.
          ladder: When strategy "auto" is content; needed for that.
          checkpoint_dir: Where checkpoints are kept; the same for all attempts of a training, and best for no other.
            Whoever has saved the result deletes it: checkpoints.remove_checkpoints.
          strategy: Made before (distribution.make_strategy); by default it is made now.
          conversions: What the result will be converted for: each is tried on the untrained model before anything is
            trained, unless a checkpoint says that it was, and those with gates again after the knob `probe_steps`;
            none for the ladder's.

        Returns:
          Models outside of any distribution; all workers get the same.

        Raises:
          ValueError: If a layer cannot be quantized or is not in float32, the conversion fails, a split is empty,
            labels don't match the model, a target cannot use what it is converted to, or a loss or range is not a
            number.
        """
        if base_model is not None and warm_start_model is not None:
            raise ValueError("got a base model, which is not trained, and a warm start model; pass one of them")
        self._check_ladder(ladder)
        if strategy is None:
            strategy = make_strategy(self._parameters.distribution, self._parameters.batch_size)
        # Layer names count up within a process and reach the exported file; random states would leak in likewise.
        tf_keras.backend.clear_session()
        leave_libraries_alone()
        session = TrainingSession(self._train, self._evaluation, self._parameters, build_model, strategy, self._log_dir)
        with saveable_randomness():
            with strategy.scope():
                tf_keras.utils.set_random_seed(self._parameters.seed)
                model = session.build_model()
                for candidate in (model, *([base_model] if base_model is not None else [])):
                    refuse_mixed_precision(candidate)
                layers = plan(base_model or model, scheme, untrainable=self._parameters.untrainable)
                layers.require_no_blockers(model.name)
                warm_start = None if warm_start_model is None else take_weights(model, warm_start_model)
                session.begin((model,) if base_model is None else (model, base_model), scheme, checkpoint_dir)
                if ladder is not None and self._parameters.strategy == "auto":
                    _try_gates(ladder, session, model)
            if ladder is not None and not conversions:
                conversions = (PlannedConversion(profile=ladder.profile, io_dtype=ladder.io_dtype),)
            _try_conversions(session, base_model or model, scheme, conversions)
            with strategy.scope():
                started = time.monotonic()
                if base_model is None:
                    session.fit(FLOAT, model)
                float_seconds = time.monotonic() - started
            trained = base_model or model
            plain = session.undistributed(model, base_model)
            rungs = Ladder(session, trained, plain, scheme, conversions)
            climbed, receipts = self._quantized(rungs, ladder, float_seconds)
            return TrainedModels(
                float_model=plain,
                quantized_model=climbed.model,
                rung=climbed.rung,
                scheme=climbed.scheme,
                float_metrics=session.evaluate(FLOAT, plain),
                quantized_metrics=session.evaluate(climbed.rung, climbed.model),
                plan=layers,
                receipts=receipts,
                warm_start=warm_start,
                calibration_set=session.calibration_set() if climbed.rung in _CALIBRATED else None,
            )

    def _check_ladder(self, ladder: LadderOptions | None) -> None:
        if self._parameters.strategy == "auto" and ladder is None:
            raise ValueError(
                "strategy 'auto' needs to know when a model is good enough; pass ladder=LadderOptions(...)"
            )

    def _quantized(
        self, ladder: Ladder, options: LadderOptions | None, float_seconds: float
    ) -> tuple[Climbed, tuple[Receipt, ...]]:
        match self._parameters.strategy:
            case "auto" if options is not None:
                return ladder.climb(options, float_seconds)
            case "ptq":
                return ladder.step("ptq"), ()
            case _:
                return ladder.step("qat"), ()


def _try_conversions(
    session: TrainingSession,
    model: tf_keras.Model,
    scheme: QuantizationScheme,
    conversions: Sequence[PlannedConversion],
) -> None:
    """Converts a quantized copy of the model without training: what converter or target refuse, they refuse for good.

    Of all targets, before it raises.
    """
    if not conversions or session.resumes():
        return
    started = time.monotonic()
    untrainable, refused = session.parameters.untrainable, []
    with undisturbed():
        if is_distributed(session.strategy):
            model = session.build_model()  # outside of the distribution
        for planned in conversions:
            try:
                tflite = preflight(
                    model, scheme, planned.profile, untrainable, planned.io_dtype, [session.first_batch()]
                )
            except ValueError as error:
                refused.append(
                    f"model {model.name!r} cannot be converted with scheme {scheme.name!r} for target"
                    f" {planned.profile!r}, tried before anything was trained: {error}"
                )
                continue
            try:
                if planned.hold is not None:
                    planned.hold(tflite, "before anything was trained")
            except ValueError as error:
                refused.append(f"model {model.name!r} {error}")
    if refused:
        raise ValueError("; ".join(refused))
    _LOGGER.info("conversion tried without training in %.1f s", time.monotonic() - started)


def _try_gates(ladder: LadderOptions, session: TrainingSession, model: tf_keras.Model) -> None:
    """Lets the ladder judge what a model without training achieves: names of metrics are wrong now or never."""
    unknown = dict.fromkeys((*session.metric_names(model), AGREEMENT), math.nan)
    metrics: Mapping[str, float] = {**unknown, EXAMPLE_COUNT: 0}
    ladder.judge(metrics, metrics)
