"""Combiners around those of TFMA's metrics."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.utils import util

# They add the first part to itself where the parts are a tuple, as Beam hands them over:
# https://github.com/tensorflow/model-analysis/blob/v0.47.1/tensorflow_model_analysis/metrics/mean_regression_error.py#L422
_COUNT_TWICE = (
    "cross_entropy_metrics",
    "flip_metrics",
    "mean_regression_error",
    "prediction_difference_metrics",
    "model_cosine_similarity",
    "tjur_discrimination",
)


def seeing_parts_once(combiner: beam.CombineFn) -> beam.CombineFn:
    """Returns a combiner of TFMA's, mended where it counts a part twice."""
    return _OnceFn(combiner) if type(combiner).__module__.rpartition(".")[2] in _COUNT_TWICE else combiner


class ByQueryFn(beam.CombineFn):  # type: ignore[misc]
    """Hands a combiner all examples of a query at once. It keeps them until then, as TFMA's own grouping does."""

    def __init__(self, combiner: beam.CombineFn, query_key: str) -> None:
        """Takes a combiner of TFMA's, and the feature by which examples are grouped."""
        self._combiner = combiner
        self._query_key = query_key

    def setup(self) -> None:
        """Sets the combiner up."""
        self._combiner.setup()

    def create_accumulator(self) -> dict[str, list[Any]]:
        """Returns no examples."""
        return {}

    def add_input(self, accumulator: dict[str, list[Any]], element: Any) -> dict[str, list[Any]]:
        """Keeps an example by its query."""
        values = element[constants.FEATURES_KEY].get(self._query_key, [""])
        accumulator.setdefault(str(values[0]), []).append(dict(element))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict[str, list[Any]]]) -> dict[str, list[Any]]:
        """Puts the examples of each query together."""
        merged: dict[str, list[Any]] = {}
        for accumulator in accumulators:
            for query, examples in accumulator.items():
                merged.setdefault(query, []).extend(examples)
        return merged

    def extract_output(self, accumulator: dict[str, list[Any]]) -> Any:
        """Returns what the combiner makes of all queries."""
        of_all = self._combiner.create_accumulator()
        for examples in accumulator.values():
            of_query = metric_types.StandardMetricInputs(util.merge_extracts(examples))
            of_all = self._combiner.add_input(of_all, of_query)
        return self._combiner.extract_output(of_all)


class _OnceFn(beam.CombineFn):  # type: ignore[misc]
    """Lets a combiner see the parts that it merges once."""

    def __init__(self, combiner: beam.CombineFn) -> None:
        self._combiner = combiner

    def setup(self) -> None:
        self._combiner.setup()

    def create_accumulator(self) -> Any:
        return self._combiner.create_accumulator()

    def add_input(self, accumulator: Any, element: Any) -> Any:
        return self._combiner.add_input(accumulator, element)

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        return self._combiner.merge_accumulators(iter(accumulators))

    def extract_output(self, accumulator: Any) -> Any:
        return self._combiner.extract_output(accumulator)
