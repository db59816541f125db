"""Conversions by the content of what they were made from, so that a retry costs nothing."""

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from components.quantization import toolchain

_LOGGER = logging.getLogger(__name__)

_DIGEST_BYTES = 32
# The conversions that were used last stay: a retry wants the newest, a sweep of schemes or targets a few dozen.
_MOST = 64


def require_directory(directory: Path) -> None:
    """Makes the directory of a cache if it is not there; raises ValueError if it cannot be one."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cache: got {directory}, expected a directory or where to make one: {error.strerror}"
        ) from error


def digest_of(definition: Any, weights: Iterable[npt.NDArray[Any]] = ()) -> bytes:
    """Returns the sha256 of a graph and of the weights that are kept beside it."""
    digest = hashlib.sha256(definition.SerializeToString(deterministic=True))
    for array in weights:
        digest.update(array.tobytes())
    return digest.digest()


def key_of(graph: bytes, options: Mapping[str, Any], examples: Iterable[Mapping[str, npt.NDArray[Any]]]) -> str:
    """Returns the sha256 of all that decides a conversion, the versions of the toolchain included.

    Args:
      graph: The digest of the frozen graph.
      options: What the conversion is told, as JSON takes it.
      examples: What ranges are calibrated with: arrays by input name.
    """
    digest = hashlib.sha256(graph)
    digest.update(json.dumps({**options, "toolchain": toolchain.versions_json()}, sort_keys=True).encode())
    for example in examples:
        for name, values in sorted(example.items()):
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def read(directory: Path, key: str) -> tuple[bytes, Any] | None:
    """Returns the file of that key and what is known of it; None if there is none that can be read whole."""
    try:
        content = (directory / key).read_bytes()
    except OSError:
        return None
    digest, kept = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(kept).digest() != digest:
        return None
    with contextlib.suppress(OSError):  # of a directory that may only be read
        os.utime(directory / key)
    known, _, tflite = kept.partition(b"\n")
    return tflite, json.loads(known)


def write(directory: Path, key: str, tflite: bytes, known: Any) -> None:
    """Keeps a file and what is known of it, as JSON takes it; whoever reads meanwhile sees all of it or nothing.

    Of more than `_MOST` those that were not used for longest are removed.

    What cannot be written is not kept, with a warning: a full disk costs the next conversion, not this one.
    """
    kept = json.dumps(known, sort_keys=True).encode() + b"\n" + tflite
    partial = directory / f".{key}-{uuid.uuid4().hex}"
    try:
        partial.write_bytes(hashlib.sha256(kept).digest() + kept)
        os.replace(partial, directory / key)
    except OSError as error:
        _LOGGER.warning("the conversion is not kept in the cache %s: %s", directory, error)
        partial.unlink(missing_ok=True)
    else:
        _prune(directory)


def _prune(directory: Path) -> None:
    with contextlib.suppress(OSError):  # another process prunes, too
        by_use = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in by_use[:-_MOST]:
            path.unlink()
