"""A look at a model during its fine-tuning, as its targets would see it then: a compiler may mind the weights."""

import logging
import time
from collections.abc import Callable, Sequence

import tf_keras

from components.quantization.conversion.convert import convert
from components.quantization.qat.preflight import PlannedConversion, undisturbed
from components.quantization.qat.session import TrainingSession
from components.quantization.schemes import QuantizationScheme

_LOGGER = logging.getLogger(__name__)


def make_probe(
    session: TrainingSession,
    loop: str,
    model: tf_keras.Model,
    plain: tf_keras.Model,
    scheme: QuantizationScheme,
    conversions: Sequence[PlannedConversion],
) -> Callable[[], None] | None:
    """Returns what converts the model as it is when called, and holds it against the gates of its targets.

    It raises ValueError if one is broken. A copy is converted: the training goes on as without it.

    Args:
      session: The training.
      loop: What trains the model.
      model: The quantized model.
      plain: The float model that it is a copy of, undistributed.
      scheme: Its scheme.
      conversions: For the targets; those without gates are left out.

    Returns:
      None if there is nothing to hold.
    """
    gated = [planned for planned in conversions if planned.gated and planned.hold is not None]
    steps = session.parameters.probe_steps
    if not gated or not steps:
        return None

    def probe() -> None:
        started = time.monotonic()
        when = f"after {steps} steps of {loop} training"
        refused = []
        with undisturbed():
            copy = session.quantized(plain, scheme)
            copy.set_weights(model.get_weights())
            batches = [{name: batch[name] for name in copy.input_names} for batch in session.calibration_batches()]
            for planned in gated:
                try:
                    tflite = convert(copy, scheme, batches, planned.profile, planned.io_dtype)
                except ValueError as error:  # ranges may not be of use yet
                    _LOGGER.warning("not probed %s for target %s: %s", when, planned.profile, error)
                    continue
                try:
                    assert planned.hold is not None
                    planned.hold(tflite, when)
                except ValueError as error:
                    refused.append(f"model {model.name!r} {error}")
        if refused:
            raise ValueError("; ".join(refused))
        _LOGGER.info("probed %s in %.1f s", when, time.monotonic() - started)

    return probe
