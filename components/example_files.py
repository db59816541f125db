"""Reads splits of Examples artifacts. URI code: any file system that TensorFlow can read."""

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf
from tfx import types
from tfx.components.example_gen import utils
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from components.quantization import record_files, records

_LOGGER = logging.getLogger(__name__)

# Splits up to this size are sorted in memory; larger ones keep the order of their files.
_SORTED_BYTES = 2 * 1024**3
_BATCH_SIZE = 100


def newest_span(examples: types.Artifact) -> int:
    """Returns the span that examples are of, of a window the newest; 0 if they come in none.

    TFX's drivers note it as a custom property; the property of the same name that Examples have they leave at 0.
    """
    name = utils.SPAN_PROPERTY_NAME
    declared: int = examples.span
    return examples.get_int_custom_property(name) if examples.has_custom_property(name) else declared


def read_split(artifacts: list[types.Artifact], split: str) -> Iterator[bytes]:
    """Yields the serialized tf.Examples of a split.

    Raises:
      ValueError: If an artifact has no such split, or a file is corrupt or was cut short.
    """
    for file in split_files(artifacts, split):
        for batch in record_files.record_batches(file, _BATCH_SIZE):
            yield from batch


def split_files(artifacts: list[types.Artifact], split: str) -> list[str]:
    """Returns the TFRecord files of a split, in order.

    Raises:
      ValueError: If an artifact has no such split.
    """
    for artifact in artifacts:
        splits = artifact_utils.decode_split_names(artifact.split_names)
        if split not in splits:
            raise ValueError(f"examples have no split {split!r}, only {', '.join(sorted(splits))}; name one of those")
    uris = artifact_utils.get_split_uris(artifacts, split)
    return [os.path.join(uri, name) for uri in uris for name in sorted(fileio.listdir(uri))]


def stage_split(artifacts: list[types.Artifact], split: str, seed: int, directory: Path) -> Path:
    """Writes a split as one uncompressed local TFRecord file, in an order that only content and seed decide.

    A split above 2 GiB keeps the order of its files; then two runs train the same model only if the files are the same.

    Returns:
      The file.
    """
    unread = read_split(artifacts, split)
    taken = records.read_up_to(unread, _SORTED_BYTES)
    beyond = next(unread, None)
    if beyond is None:
        ordered: Iterable[bytes] = records.shuffled(taken, seed)
    else:
        _LOGGER.warning("split %s is above %d bytes and keeps the order of its files", split, _SORTED_BYTES)
        ordered = itertools.chain(taken, [beyond], unread)
    path = directory / f"{split}.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in ordered:
            writer.write(record)
    return path


def staged_fingerprint(path: Path) -> str:
    """Returns what says which examples a file of `stage_split` holds, whatever their order and the seed."""
    return records.fingerprint(record_files.records_of(str(path)).as_numpy_iterator())


def sample_split(artifacts: list[types.Artifact], split: str, count: int, seed: int) -> list[bytes]:
    """Returns a uniform sample of a split's serialized tf.Examples.

    Raises:
      ValueError: If the split is empty or does not exist.
    """
    sample = records.sampled(read_split(artifacts, split), count, seed)
    if not sample:
        raise ValueError(f"split {split!r} has no examples; check the input of the ExampleGen")
    return sample
