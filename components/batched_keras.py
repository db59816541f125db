"""Metrics and losses of tf_keras over batches, in double precision.

In single precision 9 of 10 is 0.89999998, and misses a bound of 0.9.
"""

import functools
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras
from tensorflow_model_analysis.metrics import metric_types

from components.batched_inputs import computations, keys_of, values_of

# Keras is called for so many examples at once: a call takes a millisecond, whatever it is given.
_FLUSH = 1_000
_DTYPE = "float64"
# They rank float32 alone: https://www.tensorflow.org/api_docs/python/tf/math/in_top_k
_TOP_K = {
    tf_keras.metrics.TopKCategoricalAccuracy: tf_keras.metrics.top_k_categorical_accuracy,
    tf_keras.metrics.SparseTopKCategoricalAccuracy: tf_keras.metrics.sparse_top_k_categorical_accuracy,
}
SINGLE_PRECISION = (tf_keras.metrics.FBetaScore, *_TOP_K)
"""Classes that know single precision alone, unless `keras_metric` makes them."""


class BatchedKeras(metric_types.Metric):
    """A metric or loss of tf_keras over batches."""

    def __init__(self, name: str, of: str, config: Mapping[str, Any] | None = None) -> None:
        """Names the metric, its class and what that is made with; raises ValueError if nothing can be made of it."""
        keras_metric(name, of, config or {})
        super().__init__(_computations, name=name, of=of, config=dict(config or {}))


def keras_class(path: str) -> Any:
    """Returns a class of tf_keras, or of the module that its path says.

    Raises:
      ValueError: If there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        places = [importlib.import_module(module)] if module else [tf_keras.metrics, tf_keras.losses]
    except ImportError as error:
        raise ValueError(f"module {module!r} cannot be imported: {error}") from error
    found = next((getattr(place, name) for place in places if hasattr(place, name)), None)
    if not inspect.isclass(found):
        raise ValueError(f"metric {path!r} is neither one of TFMA's nor a metric or loss of tf_keras")
    return found


def keras_config(name: str, of: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a class, with its name and double precision where it takes a dtype."""
    parameters = inspect.signature(keras_class(of).__init__).parameters.values()
    takes_dtype = any(one.name == "dtype" or one.kind is one.VAR_KEYWORD for one in parameters)
    return {"name": name, **({"dtype": _DTYPE} if takes_dtype else {}), **config}


def keras_metric(name: str, of: str, config: Mapping[str, Any]) -> Any:
    """Returns a metric.

    Raises:
      ValueError: If it takes other things than labels and predictions, or its class refuses what it is made with.
    """
    found = keras_class(of)
    is_loss = issubclass(found, tf_keras.losses.Loss)
    if not issubclass(found, tf_keras.losses.Loss | tf_keras.metrics.Metric):
        raise ValueError(f"{of} is neither a metric nor a loss of tf_keras")
    if not is_loss and "y_pred" not in inspect.signature(found.update_state).parameters:
        raise ValueError(f"{of} takes values, expected a metric of labels and predictions")
    if is_loss and getattr(found.call, "__isabstractmethod__", False):
        raise ValueError(f"{of} is abstract, expected a loss that can be called")
    if not is_loss and found.merge_state is not tf_keras.metrics.Metric.merge_state:
        raise ValueError(f"{of} merges its states in a way of its own, expected a metric whose states add up")
    try:
        made = found(**({"name": name, **config} if is_loss else keras_config(name, of, config)))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{of} cannot be made with {dict(config)}: {error}") from error
    if is_loss:
        return tf_keras.metrics.MeanMetricWrapper(made.call, name, dtype=_DTYPE)
    if type(made) in _TOP_K:
        ranked = functools.partial(_of_float32, _TOP_K[type(made)])
        return tf_keras.metrics.MeanMetricWrapper(ranked, name, dtype=made.dtype, k=made.get_config()["k"])
    if isinstance(made, tf_keras.metrics.FBetaScore):
        made.beta = np.dtype(made.dtype).type(made.beta)  # a float of Python's becomes single precision there
    return made


def _of_float32(function: Any, labels: Any, predictions: Any, k: int) -> Any:
    return function(labels, tf.cast(predictions, tf.float32), k=k)


def _computations(
    name: str,
    of: str,
    config: Mapping[str, Any],
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    example_weighted: bool = False,
) -> list[metric_types.MetricComputation]:
    keys = keys_of(name, model_names, output_names, example_weighted)
    return computations(functools.partial(KerasFn, of, config), keys)


class _State:
    """Sums of a Keras metric, batches that it has not seen yet, and an example, of which it learns its shapes."""

    def __init__(self) -> None:
        self.sums: list[npt.NDArray[Any]] | None = None
        self.waiting: list[tuple[npt.NDArray[Any], ...]] = []
        self.example: tuple[npt.NDArray[Any], ...] | None = None


class KerasFn(beam.CombineFn):  # type: ignore[misc]
    """Adds up the state of a metric of tf_keras."""

    def __init__(self, of: str, config: Mapping[str, Any], key: metric_types.MetricKey) -> None:
        """Names the class, what it is made with, and whose figure it is."""
        self._of = of
        self._config = config
        self._key = key

    def setup(self) -> None:
        """Makes the metric."""
        self._metric = keras_metric(self._key.name, self._of, self._config)
        # What runs eagerly needs no AutoGraph, whose rewriting of a metric takes longer than a thousand calls of it.
        self._update = tf.autograph.experimental.do_not_convert(self._metric.update_state)

    def create_accumulator(self) -> _State:
        """Nothing."""
        return _State()

    def add_input(self, accumulator: _State, element: Any) -> _State:
        """Adds a batch."""
        labels, predictions, weights = values_of(element, self._key.model_name, self._key.output_name)
        accumulator.waiting.append((labels, predictions, weights))
        if sum(len(batch[0]) for batch in accumulator.waiting) >= _FLUSH:
            self.compact(accumulator)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_State]) -> _State:
        """Adds up."""
        merged = _State()
        for accumulator in accumulators:
            compacted = self.compact(accumulator)
            merged.example = merged.example or compacted.example
            self._add(merged, compacted.sums)
        return merged

    def compact(self, accumulator: _State) -> _State:
        """Lets the metric see what waits."""
        if accumulator.waiting:
            batch = tuple(np.concatenate(column) for column in zip(*accumulator.waiting, strict=True))
            accumulator.waiting = []
            accumulator.example = accumulator.example or tuple(column[:1] for column in batch)
            self._metric.reset_state()
            self._see(*batch)
            self._add(accumulator, self._metric.get_weights())
        return accumulator

    def extract_output(self, accumulator: _State) -> dict[metric_types.MetricKey, Any]:
        """Returns the figure."""
        sums = self.compact(accumulator).sums
        if sums is not None and accumulator.example and len(sums) != len(self._metric.weights):
            self._see(*accumulator.example)  # some make their variables only now
        self._metric.reset_state()
        if sums is not None:
            self._metric.set_weights(sums)
        return {self._key: self._metric.result().numpy()}

    def _see(self, labels: npt.NDArray[Any], predictions: npt.NDArray[Any], weights: npt.NDArray[Any]) -> None:
        weighted = weights.astype(self._metric.dtype) if self._key.example_weighted else None
        try:
            self._update(labels, predictions, weighted)
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"metric {self._key.name!r}: {self._of} cannot take labels of shape {labels.shape[1:]} with predictions"
                f" of shape {predictions.shape[1:]}{', weighted' if weighted is not None else ''}: {error}"
            ) from error

    @staticmethod
    def _add(accumulator: _State, sums: list[npt.NDArray[Any]] | None) -> None:
        if accumulator.sums is None or sums is None:
            accumulator.sums = sums if accumulator.sums is None else accumulator.sums
        else:
            accumulator.sums = [first + second for first, second in zip(accumulator.sums, sums, strict=True)]
