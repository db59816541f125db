"""Beam step that gives each slice its examples of a batch, as a batch, where TFMA takes batches apart."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib

from components.batched_features import rows_of
from components.batched_inputs import EXAMPLE_FEATURES, picked


def sliced_batches(config: config_pb2.EvalConfig, features: frozenset[str] = frozenset()) -> Any:
    """Creates the step, from TFMA's extracts of batches to those of slices of batches.

    Args:
      config: Has the slices.
      features: Those that metrics need.
    """
    return beam.ParDo(_SliceFn(config, features))


class _SliceFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: config_pb2.EvalConfig, features: frozenset[str]) -> None:
        self._features = features
        self._specs = [slicer_lib.SingleSliceSpec(spec=spec) for spec in config.slicing_specs]
        self._seen: dict[Any, list[Any]] = {}

    def process(self, extracts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        transformed, raw = extracts[constants.TRANSFORMED_FEATURES_KEY], extracts[constants.FEATURES_KEY]
        chosen_by: dict[Any, list[int]] = {}
        count = len(next(iter(extracts[constants.EXAMPLE_WEIGHTS_KEY].values())))
        rows = list(zip(rows_of(transformed, count), rows_of(raw, count), strict=True))
        for row, (ours, others) in enumerate(rows):
            for key in self._keys(ours, others):
                chosen_by.setdefault(key, []).append(row)
        for key, numbers in chosen_by.items():
            chosen = np.array(numbers)
            yield {
                **{
                    name: picked(extracts[name], chosen)
                    for name in (constants.LABELS_KEY, constants.PREDICTIONS_KEY, constants.EXAMPLE_WEIGHTS_KEY)
                },
                constants.FEATURES_KEY: {},
                **({EXAMPLE_FEATURES: [self._needed(*rows[row]) for row in numbers]} if self._features else {}),
                constants.SLICE_KEY_TYPES_KEY: [key],
            }

    def _needed(self, transformed: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
        """What metrics need of an example; a transformed feature before a raw one, as where TFMA slices."""
        return {name: values for name, values in {**raw, **transformed}.items() if name in self._features}

    def _keys(self, transformed: Mapping[str, Any], raw: Mapping[str, Any]) -> Sequence[Any]:
        # Not their bytes: those of strings are addresses.
        values = tuple((name, *np.asarray(value).ravel()) for name, value in (*transformed.items(), *raw.items()))
        if values not in self._seen:
            self._seen[values] = list(
                dict.fromkeys(slicer_lib.get_slices_for_features_dicts([transformed], raw, self._specs))
            )
            if len(self._seen) > 10_000:
                return self._seen.pop(values)
        return self._seen[values]
