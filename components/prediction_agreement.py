"""Agreement: a TFMA metric over pairs of predictions, of a model and its baseline."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.utils import model_util

from components.quantization.agreement import AGREEMENT, agreeing


class Agreement(metric_types.Metric):
    """Share of the examples, by weight, for which both models predict the same class.

    The class is the position of the highest score along the last axis, the first if several are as high; of a single
    score, whether it is above 0.5. Of a map of classes, the share of its positions that agree counts.
    """

    def __init__(self, name: str = AGREEMENT) -> None:
        """Names the metric."""
        super().__init__(_computations, name=name)


metric_types.register_metric(Agreement)


@dataclasses.dataclass
class _Weights:
    agreed: float = 0.0
    total: float = 0.0


def _computations(
    name: str = AGREEMENT,
    eval_config: Any = None,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    example_weighted: bool = False,
    **_: Any,
) -> list[metric_types.MetricComputation]:
    baseline = model_util.get_baseline_model_spec(eval_config).name
    keys = [
        metric_types.MetricKey(name=name, model_name=model, output_name=output, example_weighted=example_weighted)
        for model in model_names or [""]
        if model != baseline
        for output in output_names or [""]
    ]
    return [
        metric_types.MetricComputation(
            keys=[key], preprocessors=None, combiner=_AgreementFn(eval_config, baseline, key)
        )
        for key in keys
    ]


class _AgreementFn(beam.CombineFn):  # type: ignore[misc]
    def __init__(self, eval_config: Any, baseline: str, key: metric_types.MetricKey) -> None:
        self._eval_config = eval_config
        self._baseline = baseline
        self._key = key

    def create_accumulator(self) -> _Weights:
        return _Weights()

    def add_input(self, accumulator: _Weights, element: Any) -> _Weights:
        scores, weight = [], 0.0
        for model in (self._key.model_name, self._baseline):
            _, prediction, example_weight = next(
                metric_util.to_label_prediction_example_weight(
                    element,
                    eval_config=self._eval_config,
                    model_name=model,
                    output_name=self._key.output_name,
                    flatten=False,
                    example_weighted=self._key.example_weighted,
                )
            )
            scores.append(np.asarray(prediction))
            weight = float(np.squeeze(example_weight))
        accumulator.agreed += weight * agreeing(*scores)
        accumulator.total += weight
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Weights]) -> _Weights:
        merged = _Weights()
        for accumulator in accumulators:
            merged.agreed += accumulator.agreed
            merged.total += accumulator.total
        return merged

    def extract_output(self, accumulator: _Weights) -> dict[metric_types.MetricKey, float]:
        return {self._key: accumulator.agreed / accumulator.total if accumulator.total else float("nan")}
