"""Conversions by the content of what they were made from, so that a retry costs nothing."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from components.quantization import toolchain

_DIGEST_BYTES = 32


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
    """Returns the file of that key and what is known of it; None if there is none, or what is there is broken."""
    try:
        content = (directory / key).read_bytes()
    except FileNotFoundError:
        return None
    digest, kept = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(kept).digest() != digest:
        return None
    known, _, tflite = kept.partition(b"\n")
    return tflite, json.loads(known)


def write(directory: Path, key: str, tflite: bytes, known: Any) -> None:
    """Keeps a file and what is known of it, as JSON takes it; whoever reads meanwhile sees all of it or nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = json.dumps(known, sort_keys=True).encode() + b"\n" + tflite
    handle, partial = tempfile.mkstemp(dir=directory, prefix=".")
    with os.fdopen(handle, "wb") as file:
        file.write(hashlib.sha256(kept).digest() + kept)
    os.replace(partial, directory / key)
