"""TFMA's configuration for an integer model and its float parent."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tensorflow_model_analysis.proto import config_pb2

from components import prediction_agreement
from components.evaluation.gates import Gate, require_gates
from components.paired_predictions import FLOAT, INTEGER
from components.quantization.agreement import AGREEMENT, EXAMPLE_COUNT


def eval_config(
    label_key: str, metrics: Mapping[str, str], gates: Iterable[Gate], slices: Iterable[Sequence[str]] = ()
) -> config_pb2.EvalConfig:
    """Returns TFMA's configuration for an integer model and its float parent.

    Args:
      label_key: The transformed feature that is the label.
      metrics: Class names of TFMA or Keras metrics by the names that gates use; "agreement" and "example_count" are
        always there.
      gates: Bounds on metrics over all examples.
      slices: Features, or groups of features, by which the metrics are sliced.

    Raises:
      ValueError: If there is no gate, or one is on a metric that is not computed.
    """
    gates = list(gates)
    require_gates(gates, metrics)
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=INTEGER, label_key=label_key),
            config_pb2.ModelSpec(name=FLOAT, label_key=label_key, is_baseline=True),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=list(keys)) for keys in slices)],
        metrics_specs=[config_pb2.MetricsSpec(metrics=_metric_configs(metrics, _thresholds(gates)))],
    )


def _metric_configs(
    metrics: Mapping[str, str], thresholds: Mapping[str, config_pb2.MetricThreshold]
) -> Iterator[config_pb2.MetricConfig]:
    modules = {EXAMPLE_COUNT: "", AGREEMENT: prediction_agreement.__name__}
    classes = {**metrics, EXAMPLE_COUNT: "ExampleCount", AGREEMENT: "Agreement"}
    for name, class_name in classes.items():
        metric = config_pb2.MetricConfig(
            class_name=class_name, module=modules.get(name, ""), config=json.dumps({"name": name})
        )
        if name in thresholds:
            # A threshold without slices would be held against every slice.
            overall = config_pb2.PerSliceMetricThreshold(
                slicing_specs=[config_pb2.SlicingSpec()], threshold=thresholds[name]
            )
            metric.per_slice_thresholds.append(overall)
        yield metric


def _thresholds(gates: Iterable[Gate]) -> dict[str, config_pb2.MetricThreshold]:
    thresholds: dict[str, config_pb2.MetricThreshold] = {}
    for gate in gates:
        threshold = thresholds.setdefault(gate.metric, config_pb2.MetricThreshold())
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
    return thresholds
