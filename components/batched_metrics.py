"""TFMA metrics that take batches of examples, as `paired_predictions` hands them on.

TFMA's own metrics take one example at a time, which costs more than to run a small model.
"""

import functools
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

# Keras is called for so many examples at once: a call takes a millisecond, whatever it is given.
_FLUSH = 1_000


def metric_config(name: str, class_name: str) -> config_pb2.MetricConfig:
    """Returns TFMA's configuration of a metric over batches.

    Args:
      name: What to call it.
      class_name: A metric of TFMA's, or a metric or loss of tf_keras, perhaps with the path of its module.

    Raises:
      ValueError: If there is none of that name.
    """
    if class_name in metric_types.registered_metrics():
        wrapper = PerExample
    else:
        _keras_class(class_name)
        wrapper = BatchedKeras
    return config_pb2.MetricConfig(
        class_name=wrapper.__name__, module=__name__, config=json.dumps({"name": name, "of": class_name})
    )


class BatchedCount(metric_types.Metric):
    """Number of examples, whatever their weights."""

    def __init__(self, name: str) -> None:
        """Names the metric."""
        super().__init__(_count_computations, name=name)


class BatchedKeras(metric_types.Metric):
    """A metric or loss of tf_keras over batches."""

    def __init__(self, name: str, of: str) -> None:
        """Names the metric and its class."""
        super().__init__(_keras_computations, name=name, of=of)


class PerExample(metric_types.Metric):
    """A metric of TFMA's, to which batches are given example by example."""

    def __init__(self, name: str, of: str) -> None:
        """Names the metric and its class."""
        super().__init__(_per_example_computations, name=name, of=of)


def keys_of(
    name: str, model_names: Iterable[str] | None, output_names: Iterable[str] | None, example_weighted: bool
) -> list[metric_types.MetricKey]:
    """Returns the key of a metric for each model and output."""
    return [
        metric_types.MetricKey(name=name, model_name=model, output_name=output, example_weighted=example_weighted)
        for model in model_names or [""]
        for output in output_names or [""]
    ]


def values_of(
    element: Any, model: str, output: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Returns labels and predictions of a batch, of shape (examples, ...), and weights, (examples,)."""
    labels = np.asarray(element.get_labels(model, output))
    predictions = np.asarray(element.get_predictions(model, output))
    weights = np.asarray(element.get_example_weights(model, output), np.float64).reshape(len(predictions))
    labels, predictions = (values[:, None] if values.ndim == 1 else values for values in (labels, predictions))
    return labels, predictions, weights


def computations(
    combiner: Callable[[metric_types.MetricKey], beam.CombineFn], keys: Iterable[metric_types.MetricKey]
) -> list[metric_types.MetricComputation]:
    """Returns the computation of each key, over batches as they come."""
    return [metric_types.MetricComputation(keys=[key], preprocessors=None, combiner=combiner(key)) for key in keys]


def _count_computations(
    name: str,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    example_weighted: bool = False,
) -> list[metric_types.MetricComputation]:
    return computations(_CountFn, keys_of(name, model_names, output_names, example_weighted))


class _CountFn(beam.CombineFn):  # type: ignore[misc]
    def __init__(self, key: metric_types.MetricKey) -> None:
        self._key = key

    def create_accumulator(self) -> int:
        return 0

    def add_input(self, accumulator: int, element: Any) -> int:
        return accumulator + len(element.get_example_weights(self._key.model_name))

    def merge_accumulators(self, accumulators: Iterable[int]) -> int:
        return sum(accumulators)

    def extract_output(self, accumulator: int) -> dict[metric_types.MetricKey, float]:
        return {self._key: float(accumulator)}


def _keras_class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    places = [importlib.import_module(module)] if module else [tf_keras.metrics, tf_keras.losses]
    found = next((getattr(place, name) for place in places if hasattr(place, name)), None)
    if found is None:
        raise ValueError(f"metric {path!r} is neither one of TFMA's nor a metric or loss of tf_keras")
    return found


def _keras_computations(
    name: str,
    of: str,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    example_weighted: bool = False,
) -> list[metric_types.MetricComputation]:
    keys = keys_of(name, model_names, output_names, example_weighted)
    return computations(functools.partial(_KerasFn, of), keys)


class _KerasState:
    """Sums of a Keras metric, and batches that it has not seen yet."""

    def __init__(self) -> None:
        self.sums: list[npt.NDArray[Any]] | None = None
        self.waiting: list[tuple[npt.NDArray[Any], ...]] = []


class _KerasFn(beam.CombineFn):  # type: ignore[misc]
    def __init__(self, of: str, key: metric_types.MetricKey) -> None:
        self._of = of
        self._key = key

    def setup(self) -> None:
        made = _keras_class(self._of)(name=self._key.name)
        is_loss = isinstance(made, tf_keras.losses.Loss)
        self._metric = tf_keras.metrics.MeanMetricWrapper(made.call, self._key.name) if is_loss else made
        # What runs eagerly needs no AutoGraph, whose rewriting of a metric takes longer than a thousand calls of it.
        self._update = tf.autograph.experimental.do_not_convert(self._metric.update_state)

    def create_accumulator(self) -> _KerasState:
        return _KerasState()

    def add_input(self, accumulator: _KerasState, element: Any) -> _KerasState:
        labels, predictions, weights = values_of(element, self._key.model_name, self._key.output_name)
        accumulator.waiting.append((labels, predictions, weights))
        if sum(len(batch[0]) for batch in accumulator.waiting) >= _FLUSH:
            self.compact(accumulator)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_KerasState]) -> _KerasState:
        merged = _KerasState()
        for accumulator in accumulators:
            self._add(merged, self.compact(accumulator).sums)
        return merged

    def compact(self, accumulator: _KerasState) -> _KerasState:
        if accumulator.waiting:
            labels, predictions, weights = (np.concatenate(column) for column in zip(*accumulator.waiting, strict=True))
            accumulator.waiting = []
            self._metric.reset_state()
            self._update(labels, predictions, weights if self._key.example_weighted else None)
            self._add(accumulator, self._metric.get_weights())
        return accumulator

    def extract_output(self, accumulator: _KerasState) -> dict[metric_types.MetricKey, Any]:
        sums = self.compact(accumulator).sums
        self._metric.reset_state()
        if sums is not None:
            self._metric.set_weights(sums)
        return {self._key: self._metric.result().numpy()}

    @staticmethod
    def _add(accumulator: _KerasState, sums: list[npt.NDArray[Any]] | None) -> None:
        if accumulator.sums is None or sums is None:
            accumulator.sums = sums if accumulator.sums is None else accumulator.sums
        else:
            accumulator.sums = [first + second for first, second in zip(accumulator.sums, sums, strict=True)]


def _per_example_computations(
    name: str,
    of: str,
    eval_config: Any = None,
    schema: Any = None,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    sub_keys: Any = None,
    aggregation_type: Any = None,
    class_weights: Any = None,
    example_weighted: bool = False,
    query_key: str | None = None,
) -> list[Any]:
    metric = metric_types.registered_metrics()[of](name=name)
    computations = metric.computations(
        eval_config=eval_config,
        schema=schema,
        model_names=model_names,
        output_names=output_names,
        sub_keys=sub_keys,
        aggregation_type=aggregation_type,
        class_weights=class_weights,
        example_weighted=example_weighted,
        query_key=query_key,
    )
    return [
        one._replace(preprocessors=_unbatched(one.preprocessors))
        if isinstance(one, metric_types.MetricComputation)
        else one
        for one in computations
    ]


def _unbatched(preprocessors: list[Any]) -> list[Any]:
    """Those of a metric behind one that takes batches apart."""
    standard = metric_types.StandardMetricInputsPreprocessor
    own = [preprocessor for preprocessor in preprocessors if type(preprocessor) is not standard]
    return [_Unbatch(), *own]


class _Unbatch(metric_types.Preprocessor):
    def process(self, extracts: Mapping[str, Any]) -> Iterator[Any]:
        names = (constants.LABELS_KEY, constants.PREDICTIONS_KEY, constants.EXAMPLE_WEIGHTS_KEY)
        for row in range(len(next(iter(extracts[constants.EXAMPLE_WEIGHTS_KEY].values())))):
            example = {name: picked(extracts[name], row) for name in names}
            example[constants.SLICE_KEY_TYPES_KEY] = extracts[constants.SLICE_KEY_TYPES_KEY]
            yield metric_types.StandardMetricInputs({**example, constants.FEATURES_KEY: {}})


def picked(values: Any, rows: Any) -> Any:
    """Returns a row, or some rows, of arrays that may be nested in dicts, by model and output."""
    if isinstance(values, Mapping):
        return {name: picked(value, rows) for name, value in values.items()}
    return values[rows]
