"""Serialized tf.Examples in an order that depends on their content and a seed alone.

Beam writes examples in whatever order its workers finish. A training and a calibration that took them as they lie would
give another model on each run; sorted by a keyed hash of their content they are a reproducible, uniform shuffle.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator

import tensorflow as tf


def shuffled(records: Iterable[bytes], seed: int) -> list[bytes]:
    """Returns all records, shuffled by content and seed."""
    return [record for _, record in sorted(_keyed(records, seed))]


def sampled(records: Iterable[bytes], count: int, seed: int) -> list[bytes]:
    """Returns up to `count` records, a uniform sample that depends on content and seed; holds only the sample."""
    return [record for _, record in heapq.nsmallest(count, _keyed(records, seed))]


def fingerprint(records: Iterable[bytes]) -> str:
    """Returns 64 hexadecimal digits that say what the records are, whatever their order.

    They are the sum, modulo 2**256, of the sha256 of each, with its features in order. So a record that is there twice
    counts twice.

    >>> fingerprint([]) == "0" * 64
    True
    """
    total = sum(int.from_bytes(hashlib.sha256(_canonical(record)).digest(), "big") for record in records)
    return f"{total % 2**256:064x}"


def _keyed(records: Iterable[bytes], seed: int) -> Iterable[tuple[bytes, bytes]]:
    key = seed.to_bytes(8, "little")
    for record in records:
        canonical = _canonical(record)
        yield hashlib.blake2b(canonical, key=key, digest_size=16).digest(), canonical


def _canonical(record: bytes) -> bytes:
    """A tf.Example with its features in order: they are a map, serialized in any."""
    serialized: bytes = tf.train.Example.FromString(record).SerializeToString(deterministic=True)
    return serialized


def read_up_to(records: Iterator[bytes], limit_bytes: int) -> list[bytes]:
    """Takes records until their sizes exceed a limit, or all; leaves the rest in the iterator."""
    taken: list[bytes] = []
    size = 0
    while size <= limit_bytes and (record := next(records, None)) is not None:
        taken.append(record)
        size += len(record)
    return taken
