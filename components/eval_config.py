"""TFMA's configuration for an integer model and its float parent."""

import json
from collections.abc import Iterator, Mapping, Sequence

from tensorflow_model_analysis.proto import config_pb2

from components import prediction_agreement
from components.evaluation.gate import ANY_VALUE, FACTS, Gate, sorted_slice
from components.evaluation.gates import Gates, evaluated, today
from components.evaluation.measurements import FLOAT, INTEGER, Slice
from components.quantization.agreement import AGREEMENT, EXAMPLE_COUNT


def eval_config(
    label_key: str, metrics: Mapping[str, str], gates: Gates, slices: Sequence[Sequence[str]] = ()
) -> config_pb2.EvalConfig:
    """Returns TFMA's configuration for an integer model and its float parent.

    Args:
      label_key: The transformed feature that is the label.
      metrics: Class names of TFMA or Keras metrics by the names that gates use; "agreement" and "example_count" are
        always there.
      gates: Those that TFMA knows become its thresholds, for `tfma.load_validation_result`: on metrics, over all
        examples or slices, absolute or against the float parent.
      slices: Features, or groups of features, by which the metrics are sliced.

    Raises:
      ValueError: If a gate is on something that is not computed, or an override has expired.
    """
    evaluated(tuple(metrics), slices).require(gates, today())
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=INTEGER, label_key=label_key),
            config_pb2.ModelSpec(name=FLOAT, label_key=label_key, is_baseline=True),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=list(keys)) for keys in slices)],
        metrics_specs=[config_pb2.MetricsSpec(metrics=_metric_configs(metrics, _thresholds(gates)))],
    )


def _metric_configs(
    metrics: Mapping[str, str], thresholds: Mapping[tuple[str, Slice], config_pb2.MetricThreshold]
) -> Iterator[config_pb2.MetricConfig]:
    modules = {EXAMPLE_COUNT: "", AGREEMENT: prediction_agreement.__name__}
    classes = {**metrics, EXAMPLE_COUNT: "ExampleCount", AGREEMENT: "Agreement"}
    for name, class_name in classes.items():
        metric = config_pb2.MetricConfig(
            class_name=class_name, module=modules.get(name, ""), config=json.dumps({"name": name})
        )
        for (metric_name, cut), threshold in thresholds.items():
            if metric_name == name:
                # A threshold without slices would be held against every slice.
                one = config_pb2.PerSliceMetricThreshold(slicing_specs=[_slicing_spec(cut)], threshold=threshold)
                metric.per_slice_thresholds.append(one)
        yield metric


def _slicing_spec(cut: Slice) -> config_pb2.SlicingSpec:
    return config_pb2.SlicingSpec(
        feature_keys=[feature for feature, value in cut if value == ANY_VALUE],
        feature_values={feature: value for feature, value in cut if value != ANY_VALUE},
    )


def _thresholds(gates: Gates) -> dict[tuple[str, Slice], config_pb2.MetricThreshold]:
    thresholds: dict[tuple[str, Slice], config_pb2.MetricThreshold] = {}
    for gate in gates.bounds:
        if gate.against != FLOAT or gate.confidence or gate.metric in FACTS:
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
