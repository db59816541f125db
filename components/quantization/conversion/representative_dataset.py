"""A representative dataset: checked batches, split into the feeds of one example that calibration takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion.dense_function import Signature

Batch = Mapping[str, npt.ArrayLike] | npt.ArrayLike


def feeds(batches: Iterable[Batch], signature: Signature) -> Callable[[], Iterator[dict[str, npt.NDArray[Any]]]]:
    """Returns what yields one example after another, by input name, as the converter's signature wants them.

    Args:
      batches: Batches of inputs, each an array of shape (batch, ...) or a dict from input name to such an array.
      signature: The specs of the inputs by name, for a batch of one.

    Raises:
      ValueError: While it yields: if a batch does not fit the inputs, or there is no example.
    """

    def examples() -> Iterator[dict[str, npt.NDArray[Any]]]:
        count = 0
        for batch in batches:
            arrays = named_arrays(batch, signature)
            for row in range(len(next(iter(arrays.values())))):
                count += 1
                yield {name: array[row : row + 1] for name, array in arrays.items()}
        if not count:
            raise ValueError("representative_dataset: got no example, expected at least one; 100 to 500 are usual")

    return examples


def named_arrays(
    batch: Batch, signature: Signature, what: str = "representative_dataset"
) -> dict[str, npt.NDArray[Any]]:
    """Returns a batch as arrays by input name.

    Args:
      batch: As in `feeds`.
      signature: As in `feeds`.
      what: What the batch is part of, for errors.

    Raises:
      ValueError: If it does not fit the inputs, is not of numbers, or has values that are not finite.
    """
    named: Mapping[str, npt.ArrayLike]
    if isinstance(batch, tuple):
        raise ValueError(f"{what}: got a tuple, such as (features, label); give the features alone")
    if isinstance(batch, Mapping):
        named = batch
    elif len(signature) == 1:
        named = {next(iter(signature)): batch}
    else:
        raise ValueError(
            f"{what}: got an array for a model with inputs {', '.join(signature)}, expected a dict by name"
        )
    missing = sorted(set(signature) - set(named))
    if missing:
        raise ValueError(f"{what}: got {sorted(named)}, missing the inputs {missing}")
    try:
        arrays = {name: np.asarray(named[name], spec.dtype.as_numpy_dtype) for name, spec in signature.items()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: got values that are no arrays of numbers: {error}") from error
    for name, array in arrays.items():
        expected = tuple(signature[name].shape[1:])
        if array.shape[1:] != expected:
            raise ValueError(f"{what}: input {name!r} has shape {array.shape}, expected (batch, {str(expected)[1:]}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():  # an infinite range ends TensorFlow's process
            raise ValueError(f"{what}: input {name!r} has values that are infinite or not numbers; mend or drop them")
    return arrays
