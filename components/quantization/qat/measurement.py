"""Loss and metrics of an integer model, as Keras computes them for a float one."""

import math
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.agreement import AGREEMENT, EXAMPLE_COUNT, agreeing
from components.quantization.interpreter import IntegerModel
from components.quantization.qat.calibration import model_inputs
from components.quantization.qat.session import FLOAT, TrainingSession


def metrics_of_float(session: TrainingSession, model: tf_keras.Model) -> dict[str, float]:
    """Returns what `metrics_of_integers` does for the float model itself."""
    count = sum(_length(features) for features, *_ in session.evaluation_batches())
    return {**session.evaluate(FLOAT, model), AGREEMENT: 1.0, EXAMPLE_COUNT: float(count)}


def metrics_of_integers(
    session: TrainingSession, tflite: bytes, parent: tf_keras.Model
) -> tuple[dict[str, float], float]:
    """Runs an integer model over the eval split.

    Args:
      session: Has the split.
      tflite: The model, with signature "serving_default".
      parent: Its float parent, compiled: has loss and metrics.

    Returns:
      Loss and metrics by name, with "agreement", the share of predictions that are the parent's, NaN where there are
      several outputs; and the milliseconds of one inference.

    Raises:
      ValueError: If an example does not fit the model.
    """
    integers = IntegerModel(tflite)
    parent.reset_metrics()
    result: Mapping[str, Any] = {}
    count, agreed = 0, 0.0
    seconds = 0.0
    for features, labels, *weights in session.evaluation_batches():
        started = time.perf_counter()
        outputs = integers.predict(features)
        seconds += time.perf_counter() - started
        predicted = [tf.constant(outputs[name]) for name in parent.output_names]
        structured = tf.nest.pack_sequence_as(parent.output, predicted)
        weight = weights[0] if weights else None
        labels = tf.nest.map_structure(tf.constant, labels)
        parent.compute_loss(features, labels, structured, weight)
        result = parent.compute_metrics(features, labels, structured, weight)
        count += _length(features)
        if len(predicted) == 1:
            expected = parent(model_inputs(parent, features), training=False)
            agreed += _length(features) * agreeing(expected.numpy(), predicted[0].numpy())
    metrics = {name: float(value) for name, value in result.items()}
    agreement = agreed / count if len(parent.output_names) == 1 else math.nan
    return {**metrics, AGREEMENT: agreement, EXAMPLE_COUNT: float(count)}, 1000 * seconds / count


def _length(features: Mapping[str, Any]) -> int:
    return len(next(iter(features.values())))
