"""The arithmetic of an I/O contract, as a device does it.

This file is copied as it is beside the model, where `io_contract.py` and `selftest.py` use it: it needs NumPy alone and
runs on Python 3.8. It takes the inputs and outputs as `io_contract.json` has them, which are plain dicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def quantize(entry: dict[str, Any], source: Any) -> Any:
    """Makes a model's input of the value from which its preparation starts.

    Args:
      entry: One of the contract's "inputs".
      source: Array of "source_shape" or, for many examples, (examples, *source_shape[1:]).

    Returns:
      Array of (examples, *shape[1:]), of the input's dtype.

    Raises:
      ValueError: If the shape is another, the kind is unknown, or a value is not a number.
    """
    preparation = entry["preparation"]
    shape = tuple(preparation["source_shape"][1:])
    values = np.asarray(source)
    if values.shape[1:] != shape or values.ndim != len(shape) + 1:
        raise ValueError(
            "input {!r}: got {} of shape {}, expected (examples, *{})".format(
                entry["name"], preparation["source"], values.shape, shape
            )
        )
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("input {!r} has values that are not numbers".format(entry["name"]))
    flat = values.reshape(len(values), int(np.prod(shape)))
    kinds = {"identity": _identity, "affine": _affine, "lookup": _lookup, "steps": _steps}
    if preparation["kind"] not in kinds:
        raise ValueError("input {!r}: unknown kind {!r}".format(entry["name"], preparation["kind"]))
    return kinds[preparation["kind"]](entry, flat).reshape((len(values), *entry["shape"][1:]))


def dequantize(entry: dict[str, Any], values: Any) -> Any:
    """Returns the real values, float32, of an output's integers; what has no scale is returned as it is.

    Args:
      entry: One of the contract's "outputs" (or "inputs").
      values: Array of integers of any shape.
    """
    if entry["scale"] is None:
        return np.asarray(values)
    return (np.asarray(values).astype(np.float32) - np.float32(entry["zero_point"])) * np.float32(entry["scale"])


def _each(values: list[float], size: int) -> Any:
    """One value per element: one for all, one per channel (the last axis), or one each."""
    return np.resize(np.asarray(values, np.float32), size)


def _identity(entry: dict[str, Any], flat: Any) -> Any:
    if not _is_integer(entry):
        return flat.astype(entry["dtype"])
    return (flat.astype(np.int64) + entry["preparation"]["shift"]).astype(entry["dtype"])


def _affine(entry: dict[str, Any], flat: Any) -> Any:
    preparation, size = entry["preparation"], flat.shape[1]
    product = flat.astype(np.float32) * _each(preparation["multiplier"], size)
    return _rounded(entry, product + _each(preparation["offset"], size))


def _lookup(entry: dict[str, Any], flat: Any) -> Any:
    preparation = entry["preparation"]
    tables = np.asarray(preparation["tables"], entry["dtype"])
    rows = np.resize(np.arange(len(tables)), flat.shape[1])
    columns = np.clip(flat.astype(np.int64) - preparation["first"], 0, tables.shape[1] - 1)
    return tables[rows, columns]


def _steps(entry: dict[str, Any], flat: Any) -> Any:
    values = flat.astype(np.float32)
    for operation in entry["preparation"]["operations"]:
        values = _operations()[operation["op"]](values, _each(operation["values"], flat.shape[1]))
    if not _is_integer(entry):
        return values
    return _rounded(entry, values * (np.float32(1) / np.float32(entry["scale"])))


def _operations() -> dict[str, Any]:
    return {
        "add": lambda x, c: x + c,
        "subtract": lambda x, c: x - c,
        "subtract_from": lambda x, c: c - x,
        "multiply": lambda x, c: x * c,
        "divide": lambda x, c: x / c,
    }


def _rounded(entry: dict[str, Any], steps: Any) -> Any:
    """Rounds to nearest, half to even; then adds the zero point and clips."""
    limits = np.iinfo(entry["dtype"])
    return np.clip(np.rint(steps) + np.float32(entry["zero_point"]), limits.min, limits.max).astype(entry["dtype"])


def _is_integer(entry: dict[str, Any]) -> bool:
    return not entry["dtype"].startswith("float")
