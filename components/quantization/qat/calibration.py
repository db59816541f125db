"""Post-training quantization: ranges from a few examples, weights as they are."""

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.qat.freezing import quantizers, require_finite_ranges
from components.quantization.qat.quantize import switch


def calibrate(model: tf_keras.Model, batches: Iterable[Mapping[str, Any]]) -> None:
    """Sets the ranges of a quantized model to the extremes that its float values reach on some examples.

    Args:
      model: From `quantize_model`. Its weights, and the statistics of its normalizations, stay.
      batches: Features by name, each of shape (batch, ...) in the model's own units. Names that are no inputs of the
        model are ignored.

    Raises:
      ValueError: If there is no batch, an input is missing, or a value is infinite or not a number.
    """
    _set(model, calibrating=True)
    try:
        forward = tf.function(lambda inputs: model(inputs, training=False))
        count = 0
        for batch in batches:
            forward(model_inputs(model, batch))
            count += 1
    finally:
        _set(model, calibrating=False)
    if not count:
        raise ValueError("calibration: got no batch, expected at least one; 100 to 500 examples are usual")
    require_finite_ranges(model, "calibration")


def model_inputs(model: tf_keras.Model, batch: Mapping[str, Any]) -> Any:
    """Returns what a functional model is called with: its inputs out of a batch of features by name.

    Raises:
      ValueError: If one is missing.
    """
    missing = sorted(set(model.input_names) - set(batch))
    if missing:
        raise ValueError(f"the model's inputs {', '.join(missing)} are no features; there are {', '.join(batch)}")
    inputs = {name: tf.convert_to_tensor(batch[name]) for name in model.input_names}
    return inputs if len(inputs) > 1 else inputs[model.input_names[0]]


def _set(model: tf_keras.Model, calibrating: bool) -> None:
    switch(model, quantizing=not calibrating)
    for quantizer in quantizers(model):
        quantizer.calibrating = calibrating
