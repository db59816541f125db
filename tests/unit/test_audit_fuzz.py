"""Broken files end in an Audit or one clear error, in little time."""

import struct
import time
import tracemalloc

import pytest

from components.quantization import audit
from components.quantization.conversion import flatbuffer
from infra import fuzz_audit

import audited_models as models


def test_audit_ends_in_an_audit_or_a_clear_error_when_a_file_is_mutated() -> None:
    counts = fuzz_audit.run(models.all_models(), seed=20, cases=400)
    assert counts.audits > 20
    assert counts.errors > 100


def test_audit_ends_in_a_clear_error_when_a_file_is_cut_anywhere() -> None:
    tflite = models.sound()
    for end in range(0, len(tflite), 7):
        with pytest.raises(ValueError, match="TFLite flatbuffer"):
            audit(tflite[:end])


def test_readers_cost_no_more_than_the_file_when_tables_are_shared() -> None:
    # A vector of subgraphs that are all the same one, which holds a vector of tensors that are all the same one.
    tflite = _shared_tables(20_000)
    started = time.process_time()
    _require_refused(tflite)
    assert time.process_time() - started < 5
    tracemalloc.start()
    _require_refused(tflite)
    assert tracemalloc.get_traced_memory()[1] < 100 * len(tflite)
    tracemalloc.stop()


def _require_refused(tflite: bytes) -> None:
    for read in (audit, flatbuffer.read_object):
        with pytest.raises(ValueError, match="more tables than the file has room for"):
            read(tflite)


def _shared_tables(count: int) -> bytes:
    """A root table whose field 2 is a vector of one subgraph, again and again, whose field 0 is one of one tensor."""
    content = bytearray(struct.pack("<I4s", 24, b"TFL3"))
    # The vtable of the model, then its table: field 2 at 4, the schema's version at 8.
    content += struct.pack("<5H", 10, 12, 8, 0, 4) + bytes(6)
    assert len(content) == 24
    graphs = 36
    content += struct.pack("<iII", 24 - 8, graphs - 28, 3)
    graph_vtable = graphs + 4 + 4 * count
    graph = graph_vtable + 8
    content += struct.pack("<I", count)
    content += b"".join(struct.pack("<I", graph - (graphs + 4 + 4 * i)) for i in range(count))
    content += struct.pack("<4H", 6, 8, 4, 0)
    tensors = graph + 8
    content += struct.pack("<iI", graph - graph_vtable, tensors - (graph + 4))
    tensor = tensors + 4 + 4 * count + 4
    content += struct.pack("<I", count)
    content += b"".join(struct.pack("<I", tensor - (tensors + 4 + 4 * i)) for i in range(count))
    content += struct.pack("<2Hi", 4, 4, 4)
    return bytes(content)
