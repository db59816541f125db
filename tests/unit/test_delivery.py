"""Manifests and the history of versions: which files, which model, which version comes before."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from tensorflow.lite.python import schema_py_generated as schema

from components.delivery.history import Entry, entries, following, version_before, version_replaced
from components.delivery.manifest import FileDigest, Manifest, build_manifest
from components.quantization.contract.file_metadata import ModelIdentity, with_metadata
from components.quantization.conversion import flatbuffer


def _build(directory: Path) -> Manifest:
    return build_manifest(directory, facts={"half": 0.5}, run_id="run-7", pushed_at="2026-11-25T13:36:52Z")


def _tflite(description: str, run_id: str) -> bytes:
    model = schema.ModelT()
    model.version, model.description, model.buffers = 3, description, [schema.BufferT()]
    model.subgraphs = [schema.SubGraphT()]
    return with_metadata(flatbuffer.write_object(model), ModelIdentity(run_id=run_id))


def _model(
    directory: Path, description: str = "a model", run_id: str = "run-1", contract: str = "scale 0.5"
) -> Manifest:
    """A .tflite file, and one beside it that calls it by its hash."""
    directory.mkdir()
    tflite = _tflite(description, run_id)
    (directory / "tflite").write_bytes(tflite)
    (directory / "io_contract.json").write_text(f"{hashlib.sha256(tflite).hexdigest()}: {contract}")
    return _build(directory)


def test_manifest_names_a_version_by_the_hash_of_paths_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(b"abc")
    (tmp_path / "graph.pb").write_bytes(b"")
    manifest = _build(tmp_path)
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    empty = hashlib.sha256().hexdigest()
    assert manifest.files["variables/data"] == FileDigest(sha256=abc, size_bytes=3)
    assert manifest.sha256 == hashlib.sha256(f"{empty}  graph.pb\n{abc}  variables/data\n".encode()).hexdigest()
    assert manifest.version == manifest.sha256[:12]
    assert manifest.model_sha256 == manifest.sha256  # nothing in it names a run
    assert manifest.size_bytes == 3
    (tmp_path / "graph.pb").rename(tmp_path / "other.pb")
    assert _build(tmp_path).sha256 != manifest.sha256


def test_manifest_has_the_same_model_when_only_the_run_differs(tmp_path: Path) -> None:
    first, second = _model(tmp_path / "1", run_id="run-1"), _model(tmp_path / "2", run_id="run-2")
    assert first.model_sha256 == second.model_sha256
    assert first.version != second.version


@pytest.mark.parametrize("change", [{"description": "another"}, {"contract": "scale 0.25"}])
def test_manifest_has_another_model_when_more_than_the_run_differs(tmp_path: Path, change: dict[str, str]) -> None:
    assert _model(tmp_path / "1").model_sha256 != _model(tmp_path / "2", **change).model_sha256


def test_manifest_has_another_model_when_a_compiled_file_carries_the_metadata_of_its_parent(tmp_path: Path) -> None:
    """The entry says the content's hash as it was when the entry was written."""
    parent = _model(tmp_path / "1")
    model = flatbuffer.read_object((tmp_path / "1" / "tflite").read_bytes())
    model.description = "compiled"
    (tmp_path / "1" / "tflite").write_bytes(flatbuffer.write_object(model))
    assert _build(tmp_path / "1").model_sha256 != parent.model_sha256


def test_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = _model(tmp_path / "1")
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "its format is not 1"),
        ({"sha256": "0" * 64}, "its hash is not that of its files"),
        ({"model_sha256": "short"}, "a hash is no sha256"),
        ({"unknown": 1}, "unexpected keyword argument"),
        ({"files": {"tflite": 1}}, "must be a mapping"),
    ],
)
def test_manifest_is_refused_when_it_was_changed(tmp_path: Path, change: dict[str, object], message: str) -> None:
    fields = json.loads(_model(tmp_path / "1").to_json())
    with pytest.raises(ValueError, match=f"manifest cannot be read: .*{message}"):
        Manifest.from_json(json.dumps({**fields, **change}))
    with pytest.raises(ValueError, match="manifest cannot be read"):
        Manifest.from_json("[]")


@pytest.mark.parametrize("path", ["../tflite", "/etc/tflite", "a/../../tflite"])
def test_manifest_is_refused_when_it_names_files_elsewhere(path: str) -> None:
    digest = hashlib.sha256(b"").hexdigest()
    sha256 = hashlib.sha256(f"{digest}  {path}\n".encode()).hexdigest()
    manifest = Manifest(
        sha256=sha256,
        model_sha256=sha256,
        files={path: FileDigest(sha256=digest, size_bytes=0)},
        facts={},
        run_id="",
        pushed_at="",
    )
    with pytest.raises(ValueError, match="outside of its directory"):
        Manifest.from_json(manifest.to_json())


def test_manifest_tells_every_difference(tmp_path: Path) -> None:
    manifest = _model(tmp_path / "1")
    tflite = manifest.files["tflite"]
    assert manifest.differences(manifest.files) == []
    changed = dataclasses.replace(tflite, size_bytes=1234)
    missing, different = manifest.differences({"io_contract.json": None, "tflite": changed})
    assert missing == "io_contract.json: is missing"
    assert different.startswith(
        f"tflite: got 1,234 bytes of sha256 {tflite.sha256[:12]}, expected {tflite.size_bytes} of"
    )


def test_manifest_is_not_made_when_a_model_cannot_be_pushed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no files, expected a model"):
        _build(tmp_path)
    (tmp_path / "tflite").write_bytes(b"\x10\0\0\0TFL3 and no more")
    with pytest.raises(ValueError, match="TFLite flatbuffer of 20 bytes cannot be parsed"):
        _build(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "report.html").write_text("")
    with pytest.raises(ValueError, match=r"got manifest.json and report.html, which a push writes itself"):
        _build(tmp_path)


def _version(letter: str) -> str:
    return letter * 12


def _history(text: str) -> list[Entry]:
    """A push for each letter, a rollback where "<" is before it."""
    found: list[Entry] = []
    for word in text.split():
        action, version = ("rollback" if word[0] == "<" else "push"), _version(word[-1])
        found.append(following(found, action, version, version))
    return found


def test_entries_are_read_from_names_in_their_order() -> None:
    history = _history("a b <a")
    names = [entry.name for entry in reversed(history)]
    assert names[0] == "000003.rollback.aaaaaaaaaaaa.aaaaaaaaaaaa.json"
    assert entries(["README", *names, "7.push.json"]) == history
    late = dataclasses.replace(history[0], number=1_000_000)  # a seventh digit comes after six
    assert entries([late.name, *names])[-1] == late


def test_rollback_wins_when_a_push_saw_the_same_history() -> None:
    history = _history("a b")
    both = [following(history, "rollback", _version("a"), ""), following(history, "push", _version("c"), "")]
    assert max(both).action == "rollback"


@pytest.mark.parametrize(
    ("text", "latest", "before"),
    [
        ("a", "a", ""),
        ("a b c", "c", "b"),
        ("a b c <b", "b", "a"),
        ("a b c <b <a", "a", ""),
        ("a b c <a d", "d", "a"),  # b and c were rolled back from
        ("a b c <b c", "c", "b"),
        ("a b a", "a", "b"),  # pushed again
        ("a b <a <b", "b", "a"),  # and back again
        ("a b c", "b", "a"),  # the push of c died before the pointer moved
        ("a b", "", "b"),  # no pointer
        ("a x c", "c", "a"),  # x was deleted
    ],
)
def test_version_before_is_the_one_that_was_latest_when_this_one_was_pushed(
    text: str, latest: str, before: str
) -> None:
    there = {_version(letter) for letter in "abcd"}
    assert version_before(_history(text), latest and _version(latest), there) == before * 12


@pytest.mark.parametrize(
    ("text", "number", "replaced"),
    [("a", 1, ""), ("a b", 2, "a"), ("a b", 1, ""), ("a b a", 3, "b"), ("a b a", 1, ""), ("a b c <a d", 5, "a")],
)
def test_version_replaced_is_the_one_that_was_latest_before_a_move(text: str, number: int, replaced: str) -> None:
    moves = _history(text)
    assert version_replaced(moves, moves[number - 1]) == replaced * 12


def test_version_replaced_is_none_when_the_move_is_of_another_history() -> None:
    assert version_replaced(_history("a b"), _history("a b c")[2]) == ""
