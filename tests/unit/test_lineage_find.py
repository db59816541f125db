"""Which model `lineage` is asked for: a file, a directory, a hash, a number, or what is none of them."""

from pathlib import Path

import pytest

from components.quantization.file_hash import sha256 as sha256_of

from replayed_store import Store, changed, compiler_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_model_is_found_by_hash_prefix_and_id(store: Store) -> None:
    run = store.run("run-1")
    model = store.artifact(run, compiler_of("cpu"), "Model")
    pushed = store.artifact(run, "Pusher-cpu", "PushedModel")
    sha256 = model.custom_properties["sha256"].string_value
    for what in (sha256, sha256.upper(), sha256[:8], model.id, pushed.id):
        assert store.lineage(what).id == model.id


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "missing.tflite",
            "no file 'missing.tflite'; give the path of a .tflite file or of a pushed version's directory",
        ),
        ("abcde", "no file 'abcde'"),
        ("", "no file ''"),
        (".", "directory . has no file tflite and is no SavedModel"),
        ("12345678901234567890123", "no model with sha256 12345678901234567890123 is in this ML Metadata"),
        ("9" * 65, "no file"),
        ("000000000000", "no model with sha256 000000000000 is in this ML Metadata"),
        ("1", "artifact 1 is of type Examples; give that of a Model or PushedModel"),
    ],
)
def test_lineage_exits_with_2_and_one_sentence_when_nobody_is_meant(store: Store, what: str, message: str) -> None:
    store.run("run-1")
    result = store.cli(what)
    assert result.exit_code == 2
    assert message in result.output


def test_model_is_found_by_a_prefix_of_digits_alone_when_it_is_too_long_for_an_id(store: Store) -> None:
    sha256 = "12345678901234567890123" + "a" * 41
    run = store.run("run-1", edit=changed(compiler_of("cpu"), "Model", sha256=sha256))
    assert store.lineage("12345678901234567890123").id == store.artifact(run, compiler_of("cpu"), "Model").id


def test_directory_of_a_pushed_version_means_its_file(store: Store, tmp_path: Path) -> None:
    run = store.run("run-1")
    file = store.file(run, "cpu", tmp_path / "version" / "tflite")
    (file.parent / "manifest.json").write_text("{}")
    assert store.lineage(file.parent).id == store.artifact(run, compiler_of("cpu"), "Model").id


def test_directory_of_a_saved_model_is_found_by_the_hash_of_all_its_files(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "saved"
    directory.mkdir()
    (directory / "saved_model.pb").write_bytes(b"graph")
    run = store.run("run-1", edit=changed(compiler_of("cpu"), "Model", sha256=sha256_of(directory)))
    assert store.lineage(directory).id == store.artifact(run, compiler_of("cpu"), "Model").id


def test_page_in_no_directory_is_refused_before_the_search(store: Store, tmp_path: Path) -> None:
    result = store.cli("000000000000", "--html", tmp_path / "nowhere" / "page.html")
    assert result.exit_code == 2
    assert f"--html: there is no directory {tmp_path / 'nowhere'} to write page.html to; make it" in result.output
    assert "no model with sha256" not in result.output
