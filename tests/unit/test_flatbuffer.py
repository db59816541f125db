"""Reading .tflite files: what they hold, and what is refused."""

import copy
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization.conversion import flatbuffer

import audited_models as models


def test_read_subgraphs_gives_constants_as_views_of_the_file() -> None:
    tflite = models.sound()
    (graph,) = flatbuffer.read_subgraphs(tflite)
    kernel = graph.tensors[1]
    assert (kernel.name, kernel.shape, kernel.dtype) == ("conv/kernel", (3, 1, 1, 2), "INT8")
    assert isinstance(kernel.constant, memoryview)
    assert kernel.constant.obj is tflite
    np.testing.assert_array_equal(kernel.values, np.full((3, 1, 1, 2), 100))


def test_read_subgraphs_keeps_the_places_of_inputs_that_are_not_given() -> None:
    (op,) = flatbuffer.read_subgraphs(models.lstm())[0].ops
    assert op.operands[9:12] == (-1, -1, -1)
    assert -1 not in op.inputs
    assert len(op.intermediates) == 5


def test_read_subgraphs_names_the_subgraphs_that_an_op_runs() -> None:
    main, first, second = flatbuffer.read_subgraphs(models.branches("INT8"))
    assert main.ops[0].subgraphs == (1, 2)
    assert (len(first.ops), len(second.ops)) == (1, 1)


def test_write_object_gives_back_what_read_object_read() -> None:
    again = flatbuffer.write_object(flatbuffer.read_object(models.sound()))
    assert flatbuffer.read_subgraphs(again) == flatbuffer.read_subgraphs(models.sound())


def test_write_object_leaves_out_content_that_nothing_has() -> None:
    model = flatbuffer.read_object(models.sound())
    unused = schema.BufferT()
    unused.data = np.arange(64, dtype=np.uint8)
    model.buffers.append(unused)
    model.buffers.append(copy.copy(unused))
    model.subgraphs[0].tensors[8].buffer = len(model.buffers) - 1
    again = flatbuffer.read_object(flatbuffer.write_object(model))
    assert [buffer.data is None or len(buffer.data) for buffer in again.buffers[-2:]] == [True, 64]


def test_read_subgraphs_finds_constants_behind_the_flatbuffer() -> None:
    tflite = _behind_the_flatbuffer(bytes([1, 2, 3, 4, 5, 6, 7]) + bytes(1))
    constant = flatbuffer.read_subgraphs(tflite)[0].tensors[8].constant
    assert constant == bytes([1, 2, 3, 4, 5, 6, 7, 0])
    with pytest.raises(ValueError, match="constants behind the flatbuffer, which would be lost"):
        flatbuffer.read_object(tflite)


def test_read_subgraphs_refuses_constants_behind_the_end() -> None:
    with pytest.raises(ValueError, match="got a constant of 8 bytes at .*, behind the end"):
        flatbuffer.read_subgraphs(_behind_the_flatbuffer(b"1234"))


def _behind_the_flatbuffer(content: bytes) -> bytes:
    """The sound model whose Dense bias of 8 bytes is expected behind the flatbuffer, where the content is."""

    def move(tensors: dict[str, Any], model: Any) -> None:
        buffer = model.buffers[tensors["dense/bias"].buffer]
        buffer.data, buffer.offset, buffer.size = None, 0x1234567, 8

    tflite = models.edited(move)
    return tflite.replace(struct.pack("<Q", 0x1234567), struct.pack("<Q", len(tflite))) + content


def _op_code(_: dict[str, Any], model: Any) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 9


def _buffer(tensors: dict[str, Any], _: Any) -> None:
    tensors["dense/bias"].buffer = 77


def _operand(_: dict[str, Any], model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, 1, 99]


def _negative(_: dict[str, Any], model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, 1, -2]


def _output(_: dict[str, Any], model: Any) -> None:
    model.subgraphs[0].outputs = [-1]


def _no_graph(_: dict[str, Any], model: Any) -> None:
    model.subgraphs = []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_op_code, "op 0: got op code 9, expected one of 5"),
        (_buffer, "got buffer 77, expected one of 6"),
        (_operand, "got tensor 99 or 0, expected one of 11"),
        (_negative, "got tensor 1 or -2, expected one of 11"),
        (_output, "got an input or output that is no tensor"),
        (_no_graph, "got no subgraph"),
    ],
)
def test_read_subgraphs_names_what_leads_out_of_the_file(change: Callable[..., None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flatbuffer.read_subgraphs(models.edited(change))


@pytest.mark.parametrize(
    ("called", "message"), [((1, 7), "runs subgraph 7, expected one of 3"), ((0, 1), "run each other in a circle")]
)
def test_read_subgraphs_refuses_subgraphs_that_never_end(called: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flatbuffer.read_subgraphs(models.branches("INT8", called=called))


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 4 + b"TFL3", b"\xff" * 4 + b"TFL3" + b"\xff" * 90])
def test_readers_raise_value_error_when_the_bytes_are_no_model(content: bytes) -> None:
    for read in (flatbuffer.read_subgraphs, flatbuffer.read_object):
        with pytest.raises(ValueError, match="TFLite flatbuffer"):
            read(content)
