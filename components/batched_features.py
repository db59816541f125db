"""Features of batches, as TFMA holds them, taken apart into examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis.api import types


def rows_of(features: Mapping[str, Any], count: int) -> list[dict[str, npt.NDArray[Any]]]:
    """Returns the values of each example by feature, flat; of a feature that an example lacks, none.

    Args:
      features: Arrays of shape (count, ...), or what TFMA holds features in of which examples have none or several
        values. A feature may hold None for an example that lacks it.
      count: Number of examples.
    """
    columns = {name: _rows(values, count) for name, values in features.items() if values is not None}
    return [{name: column[row] for name, column in columns.items()} for row in range(count)]


def _rows(values: Any, count: int) -> list[npt.NDArray[Any]]:
    if isinstance(values, types.VarLenTensorValue | types.SparseTensorValue):
        flat, rows = np.asarray(values.values), np.asarray(values.indices)[:, 0]
        order = np.argsort(rows, kind="stable")
        return np.split(flat[order], np.searchsorted(rows[order], np.arange(1, count)))
    if isinstance(values, types.RaggedTensorValue):
        ends = np.asarray(values.nested_row_splits[0])
        for inner in values.nested_row_splits[1:]:
            ends = np.asarray(inner)[ends]
        return [part.ravel() for part in np.split(np.asarray(values.values), ends[1:-1])]
    return [_present(row) for row in values]


def _present(row: Any) -> npt.NDArray[Any]:
    flat = np.asarray(row).ravel()
    if flat.dtype != object:
        return flat
    return flat[[value is not None for value in flat]]
