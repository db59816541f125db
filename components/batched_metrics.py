"""TFMA metrics that take batches of examples, as `paired_predictions` hands them on.

TFMA's own metrics take one example at a time, which costs more than to run a small model.
"""

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam
import tf_keras
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_specs, metric_types
from tensorflow_model_analysis.proto import config_pb2

from components.batched_combiners import ByQueryFn, seeing_parts_once
from components.batched_inputs import Unbatch, computations, keys_of
from components.batched_keras import SINGLE_PRECISION, BatchedKeras, keras_class, keras_config, keras_metric
from components.evaluation.task_metric import TaskMetric

_REFUSED = {
    "attributions": "it needs attributions of features, which no model here gives",
    "bleu": "it needs texts as labels and predictions, and those of an integer model are numbers",
    "rouge": "it needs texts as labels and predictions, and those of an integer model are numbers",
    "object_detection": "it needs boxes as labels, and labels here are classes or values",
    "semantic_segmentation": "it needs encoded images as labels, and labels here are classes or values",
    "set_match": "it needs sets of named classes as predictions, and those of an integer model are numbers",
}
"""Modules of TFMA's metrics, or how their names begin, that take other labels or predictions than there are here."""
_NO_ARGUMENTS = {"self", "args", "kwargs", "name", "create_computations_fn"}


def metric_config(name: str, metric: TaskMetric, models: config_pb2.EvalConfig) -> config_pb2.MetricConfig:
    """Returns TFMA's configuration of a metric over batches.

    Args:
      name: What to call it.
      metric: The metric.
      models: Has the models, of which one is the baseline.

    Raises:
      ValueError: If there is no such metric, it cannot be made with its config, or it takes what there is not.
    """
    try:
        if _is_keras(metric) and metric.is_plain:
            keras_metric(name, metric.class_name, metric.config)
            wrapper, config = BatchedKeras, {"of": metric.class_name, "config": dict(metric.config)}
        else:
            wrapper, config = PerExample, {"metric": dataclasses.asdict(metric)}
            _inner_computations(name, metric, models, [spec.name for spec in models.model_specs], [""])
    except Exception as error:  # of whatever kind, from the class of a user
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"metric {name!r}, {metric.class_name}: {text}") from error
    return config_pb2.MetricConfig(
        class_name=wrapper.__name__, module=wrapper.__module__, config=json.dumps({"name": name, **config})
    )


def accuracies_of(config: config_pb2.EvalConfig) -> dict[tuple[str, str], str]:
    """Returns the classes of the metrics that are accuracies, by output and name, as `metric_config` wrote them."""
    found: dict[tuple[str, str], str] = {}
    for spec in config.metrics_specs:
        for written in spec.metrics:
            options = json.loads(written.config)
            if written.class_name == BatchedKeras.__name__:
                metric = TaskMetric(class_name=options["of"], config=options["config"])
            elif written.class_name == PerExample.__name__:
                metric = TaskMetric(**options["metric"])
            else:
                continue
            if metric.is_accuracy:
                found |= {(output, options["name"]): metric.class_name for output in spec.output_names or [""]}
    return found


def features_of(config: config_pb2.EvalConfig) -> frozenset[str]:
    """Returns the features that metrics need."""
    found = metric_specs.to_computations(list(config.metrics_specs), eval_config=config)
    preprocessors = [one for each in found for one in getattr(each, "preprocessors", None) or []]
    return frozenset(name for one in preprocessors if isinstance(one, Unbatch) for name in one.features)


class BatchedCount(metric_types.Metric):
    """Number of examples, whatever their weights."""

    def __init__(self, name: str) -> None:
        """Names the metric."""
        super().__init__(_count_computations, name=name)


class PerExample(metric_types.Metric):
    """A metric to which batches are given example by example."""

    def __init__(self, name: str, metric: Mapping[str, Any]) -> None:
        """Names the metric, and takes a `TaskMetric` as dict."""
        super().__init__(_per_example_computations, name=name, metric=dict(metric))


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


def _is_keras(metric: TaskMetric) -> bool:
    if metric.class_name in metric_types.registered_metrics():
        return False
    return not issubclass(keras_class(metric.class_name), metric_types.Metric)


def metrics_spec(name: str, metric: TaskMetric) -> config_pb2.MetricsSpec:
    """Returns what TFMA calls the metric and its options, of examples and not of batches.

    Raises:
      ValueError: If there is no such metric, or it has an option that it does not take.
    """
    module, _, class_name = metric.class_name.rpartition(".")
    config = {"name": name, **metric.config}
    if _is_keras(metric):
        if metric.query_key:
            raise ValueError("a metric of Keras takes no query_key")
        if class_name in metric_types.registered_metrics():
            raise ValueError(f"of classes or averages TFMA takes its own metric of that name; give {class_name!r}")
        found = keras_class(metric.class_name)
        is_loss = issubclass(found, tf_keras.losses.Loss)
        if is_loss and not module:
            module = tf_keras.losses.__name__
        if not is_loss and not issubclass(found, SINGLE_PRECISION):
            config = keras_config(name, metric.class_name, metric.config)
    spec = config_pb2.MetricsSpec(
        metrics=[config_pb2.MetricConfig(class_name=class_name, module=module, config=json.dumps(config))],
        query_key=metric.query_key,
    )
    if metric.aggregate:
        setattr(spec.aggregate, f"{metric.aggregate}_average", True)
        spec.aggregate.class_weights.update(metric.class_weights)
        if metric.top_k:
            spec.aggregate.top_k_list.values.extend(metric.top_k)
    for option, values in (("class_ids", metric.class_ids), ("k_list", metric.k), ("top_k_list", metric.top_k)):
        if values and not metric.aggregate:
            getattr(spec.binarize, option).values.extend(values)
    return spec


def _inner_computations(
    name: str, metric: TaskMetric, eval_config: Any, model_names: list[str], output_names: list[str]
) -> list[Any]:
    spec = metrics_spec(name, metric)
    spec.model_names.extend(model_names)
    spec.output_names.extend(output_names)
    found = metric_types.registered_metrics().get(metric.class_name)
    place = found.__module__.rpartition(".")[2] if found else ""
    refused = next((why for prefix, why in _REFUSED.items() if place.startswith(prefix)), "")
    if refused:
        raise ValueError(refused)
    # Some of TFMA's take arguments of any name, and say nothing of those that they do not know.
    known = {name for each in found.__mro__ for name in inspect.signature(each.__init__).parameters} if found else set()
    unknown = sorted(set(metric.config) - known) if found else []
    if unknown:
        expected = ", ".join(sorted(known - _NO_ARGUMENTS))
        raise ValueError(f"got arguments {', '.join(unknown)}, expected some of {expected}")
    return list(metric_specs.to_computations([spec], eval_config=eval_config))


def _per_example_computations(
    name: str,
    metric: Mapping[str, Any],
    eval_config: Any = None,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    example_weighted: bool = False,
) -> list[Any]:
    # TFMA's own weights its results unless the configuration says otherwise, as here.
    del example_weighted
    asked = TaskMetric(**metric)
    found = _inner_computations(name, asked, eval_config, model_names or [""], output_names or [""])
    return [
        _unbatched(one, asked.query_key) if isinstance(one, metric_types.MetricComputation) else one for one in found
    ]


def _unbatched(computation: metric_types.MetricComputation, query_key: str) -> metric_types.MetricComputation:
    """The same behind a preprocessor that takes batches apart."""
    standard = metric_types.StandardMetricInputsPreprocessor
    own = [one for one in computation.preprocessors if type(one) is not standard]
    filters = [one.include_filter for one in computation.preprocessors if type(one) is standard]
    features = {query_key} - {""}
    for included in filters:
        features |= set(included.get(constants.FEATURES_KEY, ()))
        features |= set(included.get(constants.TRANSFORMED_FEATURES_KEY, ()))
    combiner = seeing_parts_once(computation.combiner)
    if query_key:
        combiner = ByQueryFn(combiner, query_key)
    return computation._replace(preprocessors=[Unbatch(frozenset(features)), *own], combiner=combiner)
