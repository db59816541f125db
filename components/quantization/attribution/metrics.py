"""A task's metrics on predictions that were made elsewhere, as a whole and example by example, and their changes."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

Outputs = dict[str, npt.NDArray[Any]]
# Labels, and predictions of shape (examples, ...), a dict by name of several outputs; returns one number for each
# example, whose mean is the metric, or one number for all.
Metric = Callable[[Any, Any], npt.ArrayLike]

# The mean of the examples' own values equals the metric by so much, or the metric is no mean, such as an AUC.
_MEAN_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """What a metric needs to know of one batch."""

    features: Any
    labels: Any
    weights: Any
    rows: slice


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Each:
    """One number for each example, with weights, whose mean is a metric."""

    values: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Metrics of one set of predictions.

    Attributes:
      values: By name.
      each: By name; only of metrics that are means over examples.
    """

    values: dict[str, float]
    each: dict[str, Each]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What one step did to one metric.

    Attributes:
      metric: Its name.
      start: The step before.
      end: The step after.
      difference: The metric after the step, minus that before.
      standard_error: Of the difference, paired by example; None if the metric is no mean over examples.
      cause: What lies between the steps.
    """

    metric: str
    start: str
    end: str
    difference: float
    standard_error: float | None
    cause: str


def compiled_metrics(model: tf_keras.Model, batches: Sequence[Labelled], outputs: Outputs) -> Measured:
    """Computes loss and metrics with which a model was compiled.

    Args:
      model: The float model, compiled.
      batches: With labels.
      outputs: The predictions by name of the model's output.
    """
    model.reset_metrics()
    found: Mapping[str, Any] = {}
    for batch in batches:
        found = _update(model, batch, outputs, batch.rows)
    values = {name: float(value) for name, value in found.items()}
    each = {name: np.array(column) for name, column in _singles(model, batches, outputs, list(values)).items()}
    model.reset_metrics()
    weights = _example_weights(batches)
    means = {name: _as_mean(column, weights, values[name]) for name, column in each.items()}
    return Measured(values=values, each={name: mean for name, mean in means.items() if mean is not None})


def own_metric(name: str, metric: Metric, labels: Any, predictions: Any) -> Measured:
    """Computes a metric of the user's."""
    found = np.asarray(metric(labels, predictions), np.float64)
    each = {name: Each(values=found, weights=np.ones(len(found)))} if found.ndim else {}
    return Measured(values={name: float(found.mean())}, each=each)


def _example_weights(batches: Sequence[Labelled]) -> npt.NDArray[np.float64] | None:
    """The weights of all examples, 1 where there are none; None if they are not one number for each."""
    found: list[npt.NDArray[np.float64]] = []
    for batch in batches:
        count = batch.rows.stop - batch.rows.start
        weights: Any = np.ones(count) if batch.weights is None else batch.weights
        if isinstance(weights, Mapping | list | tuple) or np.size(weights) != count:
            return None
        found.append(np.asarray(weights, np.float64).reshape(count))
    return np.concatenate(found, dtype=np.float64)


def changes(start: tuple[str, Measured], end: tuple[str, Measured], cause: str) -> tuple[Change, ...]:
    """Returns what happened to each metric between two steps, each with its name."""
    found = []
    for metric, value in end[1].values.items():
        before, after = start[1].each.get(metric), end[1].each.get(metric)
        error = None
        if before is not None and after is not None and np.array_equal(before.weights, after.weights):
            error = standard_error(after.values - before.values, after.weights)
        found.append(
            Change(
                metric=metric,
                start=start[0],
                end=end[0],
                difference=value - start[1].values[metric],
                standard_error=error,
                cause=cause,
            )
        )
    return tuple(found)


def standard_error(each: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float | None:
    """Returns the standard error of the weighted mean of independent numbers; None for fewer than two.

    >>> standard_error(np.array([1.0, 0.0, 0.0, -1.0]), np.ones(4))  # deviation sqrt(2/3), over sqrt(4)
    0.408248290463863
    """
    count = len(each)
    if count < 2 or not weights.sum():
        return None
    deviations = weights * (each - np.average(each, weights=weights))
    return math.sqrt(count / (count - 1) * float(np.sum(deviations**2))) / float(weights.sum())


def _as_mean(column: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None, value: float) -> Each | None:
    """The numbers and weights whose mean is a metric: Keras weights the loss and `weighted_metrics` in two ways."""
    ones = np.ones(len(column))
    ways = [Each(values=column, weights=ones)]
    if weights is not None:
        ways += [Each(values=column, weights=weights), Each(values=column * weights, weights=ones)]
    tolerance = _MEAN_TOLERANCE * max(1.0, abs(value))
    weighted = (way for way in ways if way.weights.sum())
    return next((w for w in weighted if abs(np.average(w.values, weights=w.weights) - value) <= tolerance), None)


def _update(model: tf_keras.Model, batch: Labelled, outputs: Outputs, rows: slice) -> Any:
    predicted = [tf.constant(outputs[name][rows]) for name in model.output_names]
    structured = tf.nest.pack_sequence_as(model.output, predicted)
    labels, weights = _constants(batch.labels), _constants(batch.weights)
    model.compute_loss(batch.features, labels, structured, weights)
    return model.compute_metrics(batch.features, labels, structured, weights)


def _singles(
    model: tf_keras.Model, batches: Sequence[Labelled], outputs: Outputs, names: Sequence[str]
) -> dict[str, list[float]]:
    """The metrics of each example alone, with weight 1."""

    @tf.function(reduce_retracing=True, autograph=False)  # type: ignore[untyped-decorator]
    def alone(features: Any, labels: Any, predicted: Any) -> Any:
        model.reset_metrics()
        structured = tf.nest.pack_sequence_as(model.output, predicted)
        model.compute_loss(features, labels, structured, None)
        return model.compute_metrics(features, labels, structured, None)

    found: dict[str, list[float]] = {name: [] for name in names}
    for batch in batches:
        features, labels = _constants(batch.features), _constants(batch.labels)
        predicted = [tf.constant(outputs[name][batch.rows]) for name in model.output_names]
        for row in range(batch.rows.stop - batch.rows.start):
            one = tf.nest.map_structure(lambda values, row=row: values[row : row + 1], (features, labels, predicted))
            result = alone(*one)
            for name in names:
                found[name].append(float(result[name]))
    return found


def _constants(structure: Any) -> Any:
    return None if structure is None else tf.nest.map_structure(tf.constant, structure)
