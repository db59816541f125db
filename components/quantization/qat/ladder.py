"""The ladder: the cheapest way to integers that is accurate enough.

Rungs, in this order: "ptq", ranges from a few examples; "selective", the layers that lose most are trained; "qat", all
layers are; "mixed", and what loses most gets more bits. Each is converted and its integer model measured.
"""

import contextlib
import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import tf_keras

from components.quantization.conversion import convert as conversion
from components.quantization.conversion import io_dtypes
from components.quantization.conversion.profiles import load_profile
from components.quantization.qat import measurement
from components.quantization.qat.calibration import calibrate
from components.quantization.qat.preflight import PlannedConversion
from components.quantization.qat.probe import make_probe
from components.quantization.qat.sensitivity import sensitivities, worst
from components.quantization.qat.session import FLOAT, TrainingSession
from components.quantization.schemes import QuantizationScheme, load_scheme

_LOGGER = logging.getLogger(__name__)

Rung = Literal["ptq", "selective", "qat", "mixed"]
RUNGS: tuple[Rung, ...] = ("ptq", "selective", "qat", "mixed")
# Examples that sensitivity is measured on.
_PROBED = 64

Metrics = Mapping[str, float]
# Given the metrics of an integer model and of its float parent: whether that is accurate enough, and why.
Judge = Callable[[Metrics, Metrics], tuple[bool, tuple[str, ...]]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LadderOptions:
    """When the ladder ends, and what its models must fit.

    Attributes:
      judge: Says of an integer model's metrics on the eval split whether they are good enough.
      profile: Name of the target.
      io_dtype: Type of inputs and outputs, of all or by name; None for the scheme's usual one.
      also_for: Further targets that a scheme must suit: their names, and types of inputs and outputs.
    """

    judge: Judge
    profile: str = "edge_tpu"
    io_dtype: io_dtypes.IoDtype = None
    also_for: tuple[tuple[str, io_dtypes.IoDtype], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What one rung cost and brought.

    Attributes:
      rung: "float" for where the ladder stands, else one of `RUNGS`.
      scheme: Name of its scheme.
      metrics: Loss and metrics on the eval split, of the integer model; agreement is that with the float one.
      size_bytes: Size of the .tflite; of a float model, of its weights.
      seconds: Time that it took: training, conversion and measurement.
      example_ms: Time of one inference of the .tflite on this machine, one thread.
      accepted: Whether it is good enough; never for "float".
      reasons: Why, or why it was left out or could not be made.
    """

    rung: str
    scheme: str
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    size_bytes: int = 0
    seconds: float = 0.0
    example_ms: float = 0.0
    accepted: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def skipped(self) -> bool:
        """Whether the rung was left out, or could not be made."""
        return not self.metrics


def receipts_json(receipts: Sequence[Receipt]) -> str:
    """Returns receipts as a JSON list."""
    return json.dumps([dataclasses.asdict(receipt) for receipt in receipts], sort_keys=True)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Climbed:
    """A quantized model and how it was made.

    Attributes:
      rung: Its rung.
      model: The model, compiled, outside of any distribution, its ranges known.
      scheme: Its scheme.
    """

    rung: Rung
    model: tf_keras.Model
    scheme: QuantizationScheme


class Ladder:
    """The rungs over one trained float model."""

    def __init__(
        self,
        session: TrainingSession,
        trained: tf_keras.Model,
        plain: tf_keras.Model,
        scheme: QuantizationScheme,
        conversions: Sequence[PlannedConversion] = (),
    ) -> None:
        """Stands on the ground.

        Args:
          session: Trains.
          trained: The float model, in the session's strategy.
          plain: The same, undistributed and compiled.
          scheme: The scheme.
          conversions: What a model is held against while it is fine-tuned.
        """
        self._conversions = conversions
        self._session = session
        self._trained = trained
        self._plain = plain
        self._scheme = scheme
        self._calibrated: tf_keras.Model | None = None
        self._worst: tuple[str, ...] = ()

    def step(self, rung: Rung) -> Climbed:
        """Makes the model of one rung."""
        if rung == "ptq":
            return Climbed(rung=rung, model=self._ptq(), scheme=self._scheme)
        if rung == "selective":
            return Climbed(rung=rung, model=self._selective(), scheme=self._scheme)
        scheme = self._scheme if rung == "qat" else self._more_bits()
        return Climbed(rung=rung, model=self._fine_tuned(rung, scheme), scheme=scheme)

    def climb(self, options: LadderOptions, float_seconds: float = 0.0) -> tuple[Climbed, tuple[Receipt, ...]]:
        """Takes one rung after another until one is good enough.

        Args:
          options: When that is.
          float_seconds: How long the float model was trained, for its receipt.

        Returns:
          That model, or the one of least loss if none is good enough; and the receipts of all rungs, "float" first.

        Raises:
          ValueError: If no rung gave a model.
        """
        floats = measurement.metrics_of_float(self._session, self._plain)
        size = 4 * self._plain.count_params()
        receipts = [Receipt(rung=FLOAT, scheme=FLOAT, metrics=floats, size_bytes=size, seconds=float_seconds)]
        candidates: list[tuple[Climbed, Receipt]] = []
        for rung in RUNGS:
            refusal = self._refusal(options) if rung == "mixed" else ""
            if refusal:
                receipts.append(Receipt(rung=rung, scheme=self._scheme.name, reasons=(refusal,)))
                continue
            started = time.monotonic()
            try:
                climbed = self.step(rung)
                receipt = self._measured(climbed, floats, started, options)
            except ValueError as error:
                receipts.append(self._failed(rung, started, error))
                continue
            receipts.append(receipt)
            candidates.append((climbed, receipt))
            _LOGGER.info("rung %s: %s", rung, "; ".join(receipt.reasons))
            if receipt.accepted:
                return climbed, tuple(receipts)
        if not candidates:
            reasons = "; ".join(f"{receipt.rung}: {receipt.reasons[0]}" for receipt in receipts[1:])
            raise ValueError(f"strategy 'auto': no rung of the ladder gave an integer model ({reasons})")
        climbed, receipt = min(candidates, key=lambda each: each[1].metrics["loss"])
        _LOGGER.warning("no rung is good enough; rung %s has the least loss", receipt.rung)
        return climbed, tuple(receipts)

    def _failed(self, rung: Rung, started: float, error: ValueError) -> Receipt:
        """The receipt of a rung that gave no model, such as for want of a kernel."""
        reason = f"could not be made: {error}"
        _LOGGER.warning("rung %s %s", rung, reason)
        scheme = self._more_bits() if rung == "mixed" else self._scheme
        return Receipt(rung=rung, scheme=scheme.name, seconds=time.monotonic() - started, reasons=(reason,))

    def _measured(self, climbed: Climbed, floats: Metrics, started: float, options: LadderOptions) -> Receipt:
        tflite = conversion.convert(
            climbed.model,
            climbed.scheme,
            representative_dataset=[_inputs(climbed.model, batch) for batch in self._session.calibration_batches()],
            profile=options.profile,
            io_dtype=options.io_dtype,
        )
        metrics, example_ms = measurement.metrics_of_integers(self._session, tflite, self._plain)
        accepted, reasons = options.judge(metrics, floats)
        return Receipt(
            rung=climbed.rung,
            scheme=climbed.scheme.name,
            metrics=metrics,
            size_bytes=len(tflite),
            seconds=time.monotonic() - started,
            example_ms=example_ms,
            accepted=accepted,
            reasons=reasons,
        )

    def _ptq(self) -> tf_keras.Model:
        if self._calibrated is None:
            model = self._session.quantized(self._plain, self._scheme)
            calibrate(model, self._session.calibration_batches())
            self._session.compile("qat", model)
            self._calibrated = model
        return self._calibrated

    def _worst_layers(self) -> tuple[str, ...]:
        if not self._worst:
            batch = {name: values[:_PROBED] for name, values in self._session.calibration_batches()[0].items()}
            measured = sensitivities(self._ptq(), batch)
            self._worst = worst(measured)
            listed = ", ".join(f"{one.layer} ({one.sqnr_db:.1f} dB)" for one in measured[: len(self._worst)])
            _LOGGER.info("most sensitive of %d layers: %s", len(measured), listed)
        return self._worst

    def _selective(self) -> tf_keras.Model:
        calibrated, chosen = self._ptq(), frozenset(self._worst_layers())

        def start(model: tf_keras.Model) -> contextlib.AbstractContextManager[None]:
            model.set_weights(calibrated.get_weights())
            return _only_trainable(model, chosen)

        return self._fine_tuned("selective", self._scheme, start)

    def _fine_tuned(
        self,
        loop: Rung,
        scheme: QuantizationScheme,
        start: Callable[[tf_keras.Model], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> tf_keras.Model:
        """A quantized copy of the float model, trained while what `start` returns lasts."""
        session = self._session
        with session.strategy.scope():
            tf_keras.utils.set_random_seed(session.parameters.seed)
            model = session.quantized(self._trained, scheme)
            with start(model):
                probe = make_probe(session, loop, model, self._plain, scheme, self._conversions)
                session.fit(loop, model, self._trained, probe)
        return session.undistributed_copy(loop, model, self._plain, scheme)

    def _more_bits(self) -> QuantizationScheme:
        """Weights of the worst layers with 8 bits instead of 4, or else all activations with 16 instead of 8."""
        if self._scheme.weight_bits == 4:
            names = "|".join(re.escape(name.removesuffix("_values")) for name in self._worst_layers())
            override = (f"^({names})$", "int8_weights")
            name = f"{self._scheme.name}_mixed"
            return dataclasses.replace(self._scheme, name=name, overrides=(override, *self._scheme.overrides))
        kept = tuple(override for override in self._scheme.overrides if override[1] in ("skip", "int8_weights"))
        return dataclasses.replace(load_scheme("int16x8"), overrides=kept)

    def _refusal(self, options: LadderOptions) -> str:
        """Why the last rung is out of reach; empty if it is not."""
        if self._scheme.activation_bits == 16:
            return f"left out: nothing has more bits than scheme {self._scheme.name}"
        try:
            scheme = self._more_bits()
            for profile, io_dtype in ((options.profile, options.io_dtype), *options.also_for):
                load_profile(profile).check(scheme)
                io_dtypes.require(io_dtype, scheme)
        except ValueError as error:
            return f"left out: {error}"
        return ""


def _inputs(model: tf_keras.Model, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: batch[name] for name in model.input_names}


@contextlib.contextmanager
def _only_trainable(model: tf_keras.Model, names: frozenset[str]) -> Iterator[None]:
    """Freezes all layers but some, and their normalizations, for a while."""
    frozen = [layer for layer in model.layers if layer.name not in names and layer.trainable]
    before = [[(inner, inner.trainable) for inner in layer._flatten_layers()] for layer in frozen]
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for inners in before:
            for inner, trainable in inners:  # an outer layer sets those inside it, which follow
                inner.trainable = trainable
