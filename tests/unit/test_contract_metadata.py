"""A file says who it is, and computes what it computed."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as lite

from components.quantization.contract.file_metadata import (
    ENTRY,
    ModelIdentity,
    find_metadata,
    read_metadata,
    with_metadata,
    without_metadata,
)
from components.quantization.conversion import flatbuffer

from contract_cases import image_model, pixels

_IDENTITY = ModelIdentity(
    run_id="run-7",
    parent_sha256="ab" * 32,
    scheme='{"name":"full_int8"}',
    labels={"scores": ("cat", "dog", "naïve")},
    versions={"tensorflow": "2.16.2"},
)


def _outputs(tflite):
    interpreter = tf.lite.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    made = []
    for image in pixels(4):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], (image[None] ^ 0x80).view(np.int8))
        interpreter.invoke()
        made.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(made)


def test_read_metadata_gives_what_with_metadata_wrote():
    found = read_metadata(with_metadata(image_model(), _IDENTITY))

    assert found.identity == _IDENTITY
    assert len(found.model_uuid) == 36
    assert read_metadata(image_model()) is None


def test_model_uuid_is_that_of_the_content():
    first = read_metadata(with_metadata(image_model(), _IDENTITY))
    second = read_metadata(with_metadata(image_model(), ModelIdentity(run_id="run-8")))
    other = read_metadata(with_metadata(image_model("uint8"), _IDENTITY))

    assert first.model_uuid == second.model_uuid
    assert first.content_sha256 == second.content_sha256
    assert first.model_uuid != other.model_uuid


def test_without_metadata_is_equal_when_files_differ_in_metadata_alone():
    tflite = image_model()
    first, second = with_metadata(tflite, _IDENTITY), with_metadata(tflite, ModelIdentity(run_id="run-8"))

    assert first != second
    assert without_metadata(first) == without_metadata(second) == without_metadata(tflite)
    assert without_metadata(without_metadata(tflite)) == without_metadata(tflite)
    assert read_metadata(without_metadata(first)) is None


def test_with_metadata_is_deterministic_and_replaces_its_own():
    once = with_metadata(image_model(), _IDENTITY)

    assert with_metadata(image_model(), _IDENTITY) == once
    assert with_metadata(with_metadata(image_model(), ModelIdentity(run_id="old")), _IDENTITY) == once


def test_interpreter_gives_the_same_when_there_is_metadata():
    tflite = image_model()
    marked = with_metadata(tflite, _IDENTITY)

    np.testing.assert_array_equal(_outputs(marked), _outputs(tflite))
    assert flatbuffer.read_subgraphs(marked) == flatbuffer.read_subgraphs(tflite)
    signatures = [tf.lite.Interpreter(model_content=content).get_signature_list() for content in (marked, tflite)]
    assert signatures[0] == signatures[1]


def test_with_metadata_keeps_other_entries():
    before = {entry.name: bytes(_buffer(image_model(), entry.buffer)) for entry in _entries(image_model())}
    after = {
        entry.name: bytes(_buffer(marked, entry.buffer))
        for marked in [with_metadata(image_model(), _IDENTITY)]
        for entry in _entries(marked)
    }

    assert before  # the converter writes its runtime version
    assert after.pop(ENTRY.encode())
    assert after == before


def test_with_metadata_keeps_what_follows_the_entry_in_another_writers_file():
    model = flatbuffer.read_object(with_metadata(image_model(), _IDENTITY))
    entry, buffer = lite.MetadataT(), lite.BufferT()
    buffer.data = np.frombuffer(b"of another", np.uint8)
    entry.name, entry.buffer = b"another", len(model.buffers)
    model.buffers, model.metadata = [*model.buffers, buffer], [*model.metadata, entry]

    plain = without_metadata(flatbuffer.write_object(model))

    assert read_metadata(plain) is None
    kept = {found.name: bytes(_buffer(plain, found.buffer)) for found in _entries(plain)}
    assert kept[b"another"] == b"of another"
    assert without_metadata(with_metadata(plain, _IDENTITY)) == plain
    np.testing.assert_array_equal(_outputs(plain), _outputs(image_model()))


def test_with_metadata_aligns_buffers_to_16_bytes():
    """As the schema asks; kernels read weights where they lie."""
    marked = with_metadata(image_model(), _IDENTITY)
    model = lite.Model.GetRootAs(marked, 0)

    for index in range(model.BuffersLength()):
        table = model.Buffers(index)._tab
        offset = table.Offset(4)
        if offset:
            assert table.Vector(offset) % 16 == 0


@pytest.mark.parametrize("content", [b"", b"no flatbuffer at all", b"\x10\0\0\0TFL3" + b"\xff" * 40])
def test_read_metadata_says_so_when_the_file_is_no_model(content):
    with pytest.raises(ValueError, match="TFLite flatbuffer"):
        read_metadata(content)


def test_read_metadata_says_so_when_the_entry_is_damaged_or_of_another_version():
    for content, message in (
        (b"{", "cannot be read"),
        (b'{"version":9}', "version 9, expected 1"),
        (b"[]", "cannot be read"),
    ):
        model = flatbuffer.read_object(with_metadata(image_model(), _IDENTITY))
        model.buffers[-1].data = np.frombuffer(content, np.uint8)
        with pytest.raises(ValueError, match=message):
            read_metadata(flatbuffer.write_object(model))


def _entries(tflite):
    return flatbuffer.read_object(tflite).metadata or []


def _buffer(tflite, index):
    return flatbuffer.read_object(tflite).buffers[index].data


def test_find_metadata_gives_what_the_file_says_when_it_is_a_flatbuffer_no_more():
    tflite = with_metadata(image_model(), _IDENTITY)
    broken = b"no flatbuffer" + tflite[13:]
    with pytest.raises(ValueError, match="not a TFLite flatbuffer"):
        read_metadata(broken)

    assert find_metadata(tflite) == read_metadata(tflite)
    assert find_metadata(broken) == read_metadata(tflite)
    assert find_metadata(image_model()) is None
    assert find_metadata(tflite.replace(b'"version":1', b'"version":9')) is None
    assert find_metadata(tflite[: tflite.index(b'"run_id"')]) is None
