"""Agreement: a TFMA metric over batches of pairs of predictions, of a model and its baseline."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.utils import model_util

from components.batched_inputs import computations, keys_of, values_of
from components.evaluation.decisions import Kind, decide, kind_of
from components.quantization.agreement import AGREEMENT


class Agreement(metric_types.Metric):
    """Share of the examples, by weight, for which both models predict the same class.

    The class is the position of the highest score along the last axis, the first if several are as high; of a single
    score, whether it is above 0.5. Of several labels or a map of classes, the share of those that agree counts. It is
    nan where there are no classes.
    """

    def __init__(self, name: str = AGREEMENT, kind: str = "") -> None:
        """Names the metric, and what the labels were declared to be."""
        super().__init__(_computations, name=name, kind=kind)


metric_types.register_metric(Agreement)


@dataclasses.dataclass
class _Weights:
    agreed: float = 0.0
    total: float = 0.0


def _computations(
    name: str = AGREEMENT,
    kind: str = "",
    eval_config: Any = None,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    example_weighted: bool = False,
) -> list[metric_types.MetricComputation]:
    baseline = model_util.get_baseline_model_spec(eval_config).name
    models = [model for model in model_names or [""] if model != baseline]
    keys = keys_of(name, models, output_names, example_weighted)
    return computations(functools.partial(_AgreementFn, baseline, kind or None), keys)


class _AgreementFn(beam.CombineFn):  # type: ignore[misc]
    def __init__(self, baseline: str, kind: Kind | None, key: metric_types.MetricKey) -> None:
        self._baseline = baseline
        self._kind = kind
        self._key = key

    def create_accumulator(self) -> _Weights:
        return _Weights()

    def add_input(self, accumulator: _Weights, element: Any) -> _Weights:
        labels, scores, weights = values_of(element, self._key.model_name, self._key.output_name)
        _, others, _ = values_of(element, self._baseline, self._key.output_name)
        kind = kind_of(labels, scores, self._kind)
        if kind == "values":
            accumulator.agreed = float("nan")
        else:
            equal = decide(scores, kind).classes == decide(others, kind).classes
            accumulator.agreed += float(weights @ equal.mean(axis=1))
        accumulator.total += float(weights.sum())
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Weights]) -> _Weights:
        merged = _Weights()
        for accumulator in accumulators:
            merged.agreed += accumulator.agreed
            merged.total += accumulator.total
        return merged

    def extract_output(self, accumulator: _Weights) -> dict[metric_types.MetricKey, float]:
        return {self._key: accumulator.agreed / accumulator.total if accumulator.total else float("nan")}
