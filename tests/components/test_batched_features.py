from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.slicer import slicer_lib
from tensorflow_model_analysis.utils import util

from components.batched_features import rows_of
from components.sliced_batches import sliced_batches

_REGIONS: list[list[bytes]] = [[b"north"], [b"north", b"south"], [], [b"south", b"south"], []]
_RAGGED = tf.ragged.constant(_REGIONS, dtype=tf.string)
_LISTS = [np.array(row, object) for row in _REGIONS]


def _features(kind: str) -> Any:
    if kind == "varlen":
        return util.to_varlen_sparse_tensor_value(_RAGGED.to_sparse())
    if kind == "sparse":
        return util.to_sparse_tensor_value(_RAGGED.to_sparse())
    if kind == "ragged":
        return util.to_ragged_tensor_value(_RAGGED)
    return util.to_ragged_tensor_value(tf.expand_dims(_RAGGED, 1))  # nested: each example has one list


@pytest.mark.parametrize("kind", ["varlen", "sparse", "ragged", "nested"])
def test_rows_of_gives_each_example_its_own_values(kind: str) -> None:
    rows = rows_of({"region": _features(kind)}, len(_REGIONS))
    assert [row["region"].tolist() for row in rows] == _REGIONS


def test_rows_of_takes_none_for_a_missing_value() -> None:
    values = np.empty(3, object)
    values[:] = [None, np.array([4.0]), None]
    rows = rows_of({"size": values, "absent": None}, 3)
    assert [{name: value.tolist() for name, value in row.items()} for row in rows] == [
        {"size": []},
        {"size": [4.0]},
        {"size": []},
    ]


def _by_tfma(specs: list[Any]) -> Iterator[tuple[Any, int]]:
    for row, values in enumerate(_LISTS):
        for key in set(
            slicer_lib.get_slices_for_features_dicts([], {"region": values, "size": np.array([row])}, specs)
        ):
            yield key, row


@pytest.mark.parametrize("kind", ["varlen", "sparse", "ragged", "nested"])
@pytest.mark.parametrize("transformed", [False, True])
def test_slices_are_those_of_tfma_when_a_feature_has_several_values_or_none(kind: str, transformed: bool) -> None:
    slicing = [
        tfma.SlicingSpec(),
        tfma.SlicingSpec(feature_keys=["region"]),
        tfma.SlicingSpec(feature_keys=["region", "size"]),
        tfma.SlicingSpec(feature_values={"region": "south"}),
    ]
    count = len(_REGIONS)
    both = {"region": _features(kind)}, {}
    extracts = {
        constants.TRANSFORMED_FEATURES_KEY: both[not transformed],
        constants.FEATURES_KEY: {**both[transformed], "size": np.arange(count)[:, None]},
        constants.LABELS_KEY: {"integer": np.arange(count)},
        constants.PREDICTIONS_KEY: {"integer": np.arange(count)},
        constants.EXAMPLE_WEIGHTS_KEY: {"integer": np.ones((count, 1))},
    }
    slicer = sliced_batches(tfma.EvalConfig(slicing_specs=slicing)).fn
    found = [
        (key, row)
        for batch in slicer.process(extracts)
        for key in batch[constants.SLICE_KEY_TYPES_KEY]
        for row in batch[constants.LABELS_KEY]["integer"].tolist()
    ]
    assert sorted(found, key=str) == sorted(
        _by_tfma([slicer_lib.SingleSliceSpec(spec=spec) for spec in slicing]), key=str
    )
