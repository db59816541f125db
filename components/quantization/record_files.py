"""TFRecord files, which are read to their end or refused.

TensorFlow takes a record whose first bytes are there for the end of the file, and so it does a compressed stream that
ends too early between two records. An uncompressed file that was cut between two records is whole by all that it says.
"""

import gzip
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Of a record's length, its checksum and that of the data:
# https://github.com/tensorflow/tensorflow/blob/v2.16.1/tensorflow/core/lib/io/record_writer.h#L104
FRAME_BYTES = 16
_LENGTH_BYTES = 4
_PIECE_BYTES = 2**20
_BATCH_BYTES = 2**26
_READ_AT_ONCE = 32
CORRUPT = "{} is corrupt after record {}: not a TFRecord file or cut short; write it anew"


def record_batches(file: str, size: int) -> Iterator[npt.NDArray[Any]]:
    """Yields arrays of up to `size` records, as bytes, of a file that is compressed if its name ends in .gz.

    Records of together more than 64 MiB are in several.

    Raises:
      ValueError: When it comes to the place, if the file is corrupt or was cut short.
    """
    records = records_of(file)
    count = size_bytes = framed_bytes = 0
    batch: list[bytes] = []
    try:
        for record in itertools.chain.from_iterable(records.batch(_READ_AT_ONCE).as_numpy_iterator()):
            if batch and (len(batch) == size or size_bytes + len(record) > _BATCH_BYTES):
                yield np.array(batch, object)
                batch, size_bytes = [], 0
            batch.append(record)
            count += 1
            size_bytes += len(record)
            framed_bytes += len(record) + FRAME_BYTES
        if batch:
            yield np.array(batch, object)
    except tf.errors.DataLossError as error:
        # Those that were not given yet are lost, and counted all the same.
        raise ValueError(CORRUPT.format(file, _readable(records))) from error
    if not is_whole(file, framed_bytes):
        raise ValueError(CORRUPT.format(file, count))


def is_whole(file: str, framed_bytes: int) -> bool:
    """Returns whether a file ends where its records end.

    Args:
      file: Compressed if its name ends in .gz.
      framed_bytes: Of all records that TensorFlow reads, with `FRAME_BYTES` for each.
    """
    if not file.endswith(".gz"):
        return bool(tf.io.gfile.stat(file).length == framed_bytes)
    # A stream ends with its length, but the last of several in a file with its own; in what was cut, zeros are common.
    if framed_bytes and _last_number(file) == framed_bytes % 2**32:
        return True
    return _decompressed_bytes(file) == framed_bytes


def records_of(file: str) -> tf.data.Dataset:
    """Returns the records that TensorFlow reads of a file, which is compressed if its name ends in .gz."""
    options = tf.data.Options()
    # There is nothing to tune, and at the end of a file its thread may be waited for, for almost a second.
    options.autotune.enabled = False
    return tf.data.TFRecordDataset(file, compression_type="GZIP" if file.endswith(".gz") else "").with_options(options)


def _readable(records: tf.data.Dataset) -> int:
    count = 0
    try:
        for _ in records:
            count += 1
    except tf.errors.DataLossError:
        pass
    return count


def _last_number(file: str) -> int:
    with tf.io.gfile.GFile(file, "rb") as source:
        source.seek(source.size() - _LENGTH_BYTES)
        return int.from_bytes(source.read(_LENGTH_BYTES), "little")


def _decompressed_bytes(file: str) -> int | None:
    """Size of all that a compressed file holds; None if it was cut short."""
    if not tf.io.gfile.stat(file).length:
        return None  # gzip takes it for an empty stream, which has a head and an end
    size = 0
    with tf.io.gfile.GFile(file, "rb") as source, gzip.GzipFile(fileobj=source) as stream:
        try:
            while piece := stream.read(_PIECE_BYTES):
                size += len(piece)
        except (EOFError, OSError):
            return None
    return size
