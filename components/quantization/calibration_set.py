"""Which examples calibrated a model, so that it can be said years later whether some example was among them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PROPERTY = "calibration_sets"
"""The fact of a model that holds its sets, as JSON."""
BY_CONTENT = "uniform: the records with the least hashes of content and seed"
BY_POSITION = "uniform: positions in the split drawn by the seed"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSet:
    """The examples that ranges were taken from.

    Attributes:
      examples: How many.
      chosen: How they were chosen.
      seed: What the choice depends on besides.
      sha256: Says which they are, whatever their order: the sum, modulo 2**256, of the sha256 of each. Of the records
        with their features in order where these are at hand (`records.fingerprint`), else of the features as arrays
        (`fingerprint_of_arrays`).
      by: Class of the component that took them; "" outside of a pipeline, as for all below.
      split: Name of their split.
      artifact: Id of the Examples artifact; 0 if that is not known.
      span: Number of the newest span among the raw examples that they were made of; None if that is not known.
      input_fingerprint: What ExampleGen noted of the input files; "" if that is not known.
    """

    examples: int
    chosen: str
    seed: int
    sha256: str
    by: str = ""
    split: str = ""
    artifact: int = 0
    span: int | None = None
    input_fingerprint: str = ""


def fingerprint_of_arrays(batches: Iterable[Mapping[str, npt.NDArray[Any]]]) -> str:
    """Returns 64 hexadecimal digits that say what examples are, whatever their order and batches.

    Args:
      batches: Features by name, each of shape (batch, ...); bytes as objects.

    >>> one, other = {"x": np.array([1, 2])}, {"x": np.array([2, 1])}
    >>> fingerprint_of_arrays([one]) == fingerprint_of_arrays([other])
    True
    """
    total = 0
    for batch in batches:
        for row in range(len(next(iter(batch.values())))):
            digest = hashlib.sha256()
            for name, values in sorted(batch.items()):
                value = np.asarray(values[row])
                digest.update(repr((name, value.dtype.str, value.shape)).encode())
                digest.update(repr(value.tolist()).encode() if value.dtype == object else value.tobytes())
            total += int.from_bytes(digest.digest(), "big")
    return f"{total % 2**256:064x}"


def sets_json(sets: Sequence[CalibrationSet]) -> str:
    """Returns the sets as a JSON list, for `PROPERTY`."""
    return json.dumps([dataclasses.asdict(one) for one in sets], sort_keys=True)


def sets_from_json(text: str) -> tuple[CalibrationSet, ...]:
    """Reads what `sets_json` wrote; none from an empty text."""
    return tuple(CalibrationSet(**one) for one in json.loads(text or "[]"))
