"""Batches as metrics get them: their values, and the same example by example."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types

EXAMPLE_FEATURES = "example_features"
"""The extract that holds the features of each example of a batch which metrics need, raw or transformed."""


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


class Unbatch(metric_types.Preprocessor):
    """Takes batches apart."""

    def __init__(self, features: frozenset[str] = frozenset()) -> None:
        """Says which features the metric needs."""
        super().__init__(name=f"Unbatch{sorted(features)}", features=features)
        self.features = features

    def process(self, extracts: Mapping[str, Any]) -> Iterator[Any]:
        """Yields examples."""
        names = (constants.LABELS_KEY, constants.PREDICTIONS_KEY, constants.EXAMPLE_WEIGHTS_KEY)
        features = extracts.get(EXAMPLE_FEATURES)
        for row in range(len(next(iter(extracts[constants.EXAMPLE_WEIGHTS_KEY].values())))):
            example = {name: picked(extracts[name], row) for name in names}
            example[constants.SLICE_KEY_TYPES_KEY] = extracts[constants.SLICE_KEY_TYPES_KEY]
            # What is missing in an example is not there: metrics take it for no value.
            there = {name: values for name, values in (features[row] if features else {}).items() if len(values)}
            yield metric_types.StandardMetricInputs({**example, constants.FEATURES_KEY: there})


def picked(values: Any, rows: Any) -> Any:
    """Returns a row, or some rows, of arrays that may be nested in dicts, by model and output."""
    if isinstance(values, Mapping):
        return {name: picked(value, rows) for name, value in values.items()}
    return values[rows]
