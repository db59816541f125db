"""TFMA's configuration for an integer model and those that it is held against."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from components import batched_metrics, prediction_agreement
from components.evaluation.decisions import Kind
from components.evaluation.gate import ANY_VALUE, FACTS, PAIRED, Gate, sorted_slice
from components.evaluation.gates import Gates, today
from components.evaluation.measurements import FLOAT, Slice
from components.evaluation.task import Task
from components.evaluation.task_metric import TaskMetric
from components.quantization.agreement import AGREEMENT, EXAMPLE_COUNT

_KIND = "kind"  # of the metric "agreement", which every output has


def eval_config(task: Task, gates: Gates) -> config_pb2.EvalConfig:
    """Returns TFMA's configuration.

    Args:
      task: What is measured.
      gates: Those that TFMA knows become its thresholds, for `tfma.load_validation_result`: on metrics, over all
        examples or slices, absolute or against the float parent.

    Raises:
      ValueError: If a gate is on something that is not computed, an override has expired, or there is no such metric or
        nothing can be made of it with its options.
    """
    task.require(gates)
    gates.require_current(today())
    keys: dict[str, Any] = (
        {"label_key": task.label_key} if isinstance(task.label_key, str) else {"label_keys": task.label_key}
    )
    model_specs = [
        config_pb2.ModelSpec(name=name, is_baseline=name == FLOAT, example_weight_key=task.weight_key, **keys)
        for name in task.models
    ]
    models = config_pb2.EvalConfig(model_specs=model_specs)
    return config_pb2.EvalConfig(
        model_specs=model_specs,
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=list(group)) for group in task.slices),
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(
                output_names=[output] if output else [],
                metrics=_metric_configs(
                    task.metrics_of(output), task.kind_of(output), _thresholds(gates, output), models
                ),
            )
            for output in task.labels
        ],
    )


def label_kinds(config: config_pb2.EvalConfig) -> dict[str, Kind]:
    """Returns what the labels of outputs were declared to be, by output, as `eval_config` wrote it."""
    kinds = {
        output: json.loads(metric.config)[_KIND]
        for spec in config.metrics_specs
        for metric in spec.metrics
        if metric.class_name == "Agreement"
        for output in spec.output_names or [""]
    }
    return {output: kind for output, kind in kinds.items() if kind}


def _metric_configs(
    metrics: Mapping[str, TaskMetric],
    kind: str,
    thresholds: Mapping[tuple[str, Slice], config_pb2.MetricThreshold],
    models: config_pb2.EvalConfig,
) -> Iterator[config_pb2.MetricConfig]:
    own = {
        EXAMPLE_COUNT: (batched_metrics.__name__, "BatchedCount", {}),
        AGREEMENT: (prediction_agreement.__name__, "Agreement", {_KIND: kind}),
    }
    configs = {name: batched_metrics.metric_config(name, metric, models) for name, metric in metrics.items()}
    for name, (module, class_name, further) in own.items():
        config = json.dumps({"name": name, **further})
        configs[name] = config_pb2.MetricConfig(class_name=class_name, module=module, config=config)
    for name, metric in configs.items():
        for (metric_name, cut), threshold in thresholds.items():
            # TFMA would look for the figure of all classes as they are.
            if metric_name == name and (name not in metrics or metrics[name].is_plain):
                # A threshold without slices would be held against every slice.
                one = config_pb2.PerSliceMetricThreshold(slicing_specs=[_slicing_spec(cut)], threshold=threshold)
                metric.per_slice_thresholds.append(one)
        yield metric


def _slicing_spec(cut: Slice) -> config_pb2.SlicingSpec:
    return config_pb2.SlicingSpec(
        feature_keys=[feature for feature, value in cut if value == ANY_VALUE],
        feature_values={feature: value for feature, value in cut if value != ANY_VALUE},
    )


def _thresholds(gates: Gates, output: str) -> dict[tuple[str, Slice], config_pb2.MetricThreshold]:
    thresholds: dict[tuple[str, Slice], config_pb2.MetricThreshold] = {}
    for gate in gates.bounds:
        only_ours = gate.metric in FACTS or (gate.metric in PAIRED and gate.metric != AGREEMENT)
        if gate.against != FLOAT or gate.confidence or only_ours or gate.output != output:
            continue  # TFMA knows neither a third model nor confidence, nor the file
        threshold = thresholds.setdefault((gate.metric, sorted_slice(gate.slice)), config_pb2.MetricThreshold())
        _set(threshold, gate)
    return thresholds


def _set(threshold: config_pb2.MetricThreshold, gate: Gate) -> None:
    if gate.kind == "at_least":
        threshold.value_threshold.lower_bound.value = gate.bound
    elif gate.kind == "at_most":
        threshold.value_threshold.upper_bound.value = gate.bound
    elif gate.kind == "drop_at_most":
        threshold.change_threshold.absolute.value = -gate.bound
        threshold.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
    else:
        threshold.change_threshold.absolute.value = gate.bound
        threshold.change_threshold.direction = config_pb2.MetricDirection.LOWER_IS_BETTER
