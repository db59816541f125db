"""A task's metrics on predictions that were made elsewhere, as a whole and example by example, and their changes."""

import dataclasses
import functools
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


class CompiledMetrics:
    """Loss and metrics with which a model was compiled."""

    def __init__(self, model: tf_keras.Model) -> None:
        """Takes the float model, compiled."""
        self._model = model
        self._names: tuple[str, ...] = ()

    def measure(self, batches: Sequence[Labelled], outputs: Outputs) -> Measured:
        """Computes them.

        Args:
          batches: With labels.
          outputs: The predictions by name of the model's output.
        """
        self._model.reset_metrics()
        found: Mapping[str, Any] = {}
        for batch in batches:
            found = self._update(*self._constants(batch, outputs), _constants(batch.weights))
        values = {name: float(value) for name, value in found.items()}
        self._names = tuple(values)
        columns = [self._singles(*self._constants(batch, outputs)).numpy() for batch in batches]
        each = dict(zip(values, np.concatenate(columns, dtype=np.float64).T, strict=True))
        self._model.reset_metrics()
        weights = _example_weights(batches)
        means = {name: _as_mean(column, weights, values[name]) for name, column in each.items()}
        return Measured(values=values, each={name: mean for name, mean in means.items() if mean is not None})

    def problem(self, batch: Labelled) -> str:
        """Why the labels of a batch are none of those that the model was compiled for; empty if they are."""
        shapes = zip(self._model.output_names, self._model.outputs, strict=True)
        outputs = {name: np.zeros((batch.rows.stop - batch.rows.start, *one.shape[1:]), "f") for name, one in shapes}
        try:
            self._update(*self._constants(batch, outputs))
        except Exception as error:  # whatever a loss or a metric of the user's raises
            return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
        finally:
            self._model.reset_metrics()
        return ""

    def _constants(self, batch: Labelled, outputs: Outputs) -> tuple[Any, Any, Any]:
        predicted = [tf.constant(outputs[name][batch.rows]) for name in self._model.output_names]
        return _constants(batch.features), _constants(batch.labels), predicted

    def _update(self, features: Any, labels: Any, predicted: Any, weights: Any = None) -> Any:
        structured = tf.nest.pack_sequence_as(self._model.output, predicted)
        self._model.compute_loss(features, labels, structured, weights)
        return self._model.compute_metrics(features, labels, structured, weights)

    @functools.cached_property
    def _singles(self) -> Any:
        """A function that returns, of a batch, the metrics of each example alone, with weight 1: a row for each."""

        def alone(example: Any) -> Any:
            self._model.reset_metrics()
            found = self._update(*tf.nest.map_structure(lambda values: values[tf.newaxis], example))
            return tf.stack([tf.cast(found[name], tf.float32) for name in self._names])

        def singles(*examples: Any) -> Any:
            return tf.map_fn(alone, examples, fn_output_signature=tf.float32, parallel_iterations=1)

        return tf.function(singles, reduce_retracing=True, autograph=False)


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


def _constants(structure: Any) -> Any:
    return None if structure is None else tf.nest.map_structure(tf.constant, structure)
