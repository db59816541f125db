"""The integer model that a float model would become, before anyone has trained it: its ops are the real ones."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras

from components.quantization.conversion.convert import convert
from components.quantization.conversion.profiles import ConversionProfile
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.qat.plan import Policy
from components.quantization.qat.quantize import quantize_model
from components.quantization.schemes import QuantizationScheme, load_scheme
from components.quantization.surgery.prepare import prepare
from components.quantization.surgery.proof import random_inputs

_BATCHES = 2
_ANY_RANGE = (-1.0, 1.0)


def preflight(
    model: Any,
    scheme: str | QuantizationScheme = "full_int8",
    profile: str | ConversionProfile = "edge_tpu",
    untrainable: Policy = "calibrate",
) -> bytes:
    """Quantizes a copy of the model and converts it without training, its ranges those of random inputs.

    The ops, types and shapes are those that the trained model will have; its numbers mean nothing.

    Args:
      model: A built Keras model: tf_keras or Keras 3, Sequential, functional or subclassed. It is left alone.
      scheme: A scheme or its name.
      profile: The target, by name, that it is converted for.
      untrainable: As in `plan`.

    Returns:
      A TFLite flatbuffer.

    Raises:
      ValueError: If layers cannot be quantized, or the converter or its audit refuses the model.

    >>> import tf_keras
    >>> preflight(tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))]))[4:8]
    b'TFL3'
    """
    scheme = load_scheme(scheme)
    if not scheme.trained:
        converted = prepare(model).model
        return convert(converted, scheme, profile=profile)
    converted = quantize_model(model, scheme, untrainable)
    batches = [random_inputs(converted, seed) for seed in range(_BATCHES)]
    _observe(converted, batches)
    named = [dict(zip(converted.input_names, batch, strict=True)) for batch in batches]
    return convert(converted, scheme, named, profile)


def _observe(model: tf_keras.Model, batches: list[list[npt.NDArray[Any]]]) -> None:
    """Gives every FakeQuantize of a quantized model a range; moves no weights but moving averages."""
    for batch in batches:
        model(batch if len(batch) > 1 else batch[0], training=True)
    for layer in model.layers:
        # Without training some tensors are all 0, such as those behind a weight that starts at 0.
        if isinstance(layer, FakeQuantize) and not _is_range(layer):
            layer.set_range(*_ANY_RANGE)


def _is_range(layer: FakeQuantize) -> bool:
    return layer.observed and bool(np.isfinite([float(layer.minimum), float(layer.maximum)]).all())
