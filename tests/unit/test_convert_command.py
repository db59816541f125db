"""`python -m pipelines convert`, `selftest`, and `inspect` of the file that it wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from click.testing import CliRunner, Result

from pipelines.__main__ import main

import small_models as models

pytestmark = pytest.mark.slow


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a float model, examples to calibrate with and labelled ones."""
    directory = tmp_path_factory.mktemp("saved")
    models.convolutional().save(directory / "model.keras")
    np.savez(directory / "examples.npz", image=models.images(20))
    np.savez(directory / "labelled.npz", image=models.images(30, seed=2), label=np.arange(30) % 3)
    (directory / "labels.txt").write_text("cat\ndog\nowl")  # as some editors leave it
    _write_broken_examples(directory)
    (directory / "latin1.txt").write_bytes(b"caf\xe9\n")
    return directory


def _write_broken_examples(directory: Path) -> None:
    whole = (directory / "examples.npz").read_bytes()
    (directory / "truncated.npz").write_bytes(whole[:-40])
    (directory / "empty.npz").write_bytes(b"")
    np.save(directory / "array.npy", models.images(3))
    (directory / "array.npy").rename(directory / "array.npz")
    np.savez(directory / "scalar.npz", image=np.float32(1))
    np.savez(directory / "strings.npz", image=np.full((3, 8, 8, 1), "a"))
    np.savez(directory / "cropped.npz", image=models.images(3)[:, :4])
    (directory / "table.csv").write_text("image,label\n" + "1,2\n" * 30)


def _convert(saved: Path, output: Path, *more: object) -> Result:
    return _invoke("convert", saved / "model.keras", "-o", output, "--examples", saved / "examples.npz", *more)


def test_convert_writes_what_a_device_needs_and_selftest_passes(saved: Path, tmp_path: Path) -> None:
    result = _convert(saved, tmp_path / "out", "--labels", saved / "labels.txt", "--io-dtype", "image=uint8")
    assert result.exit_code == 0, result.output
    assert "ranges calibrated: all, from 20 examples by min_max" in result.output
    assert "image: uint8" in result.output
    contract = json.loads((tmp_path / "out" / "io_contract.json").read_text())
    assert contract["inputs"][0]["dtype"] == "uint8"
    assert contract["outputs"][0]["labels"] == ["cat", "dog", "owl"]
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["ready"]
    checked = _invoke("selftest", tmp_path / "out")
    assert checked.exit_code == 0, checked.output
    assert "self-test passed" in checked.output


def test_selftest_fails_when_the_model_was_changed(saved: Path, tmp_path: Path) -> None:
    assert _convert(saved, tmp_path / "out").exit_code == 0
    path = tmp_path / "out" / "tflite"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    checked = _invoke("selftest", tmp_path / "out")
    assert checked.exit_code == 1
    assert "FAIL" in checked.output


def test_convert_records_what_each_calibration_method_scored_when_it_chooses(saved: Path, tmp_path: Path) -> None:
    auto = ("--calibration", "auto", "--eval-examples", saved / "labelled.npz")
    result = _convert(saved, tmp_path / "out", *auto)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    scores = {one["method"]: one["score"] for one in report["candidates"]}
    assert list(scores) == ["min_max", "percentile_99.99", "percentile_99.9", "mse"]
    assert scores[report["calibration"]] == max(scores.values())
    assert "calibration mse: accuracy 0." in result.output


def test_convert_takes_its_result_from_the_cache_when_it_is_there(saved: Path, tmp_path: Path) -> None:
    outputs = [_convert(saved, tmp_path / name, "--cache", tmp_path / "cache").output for name in ("a", "b")]
    assert ["from the cache" in output for output in outputs] == [False, True]
    assert (tmp_path / "a" / "tflite").read_bytes() == (tmp_path / "b" / "tflite").read_bytes()


def test_convert_reads_tf_records(saved: Path, tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "examples.tfrecord")) as writer:
        for image in models.images(4):
            values = tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel()))
            writer.write(tf.train.Example(features=tf.train.Features(feature={"image": values})).SerializeToString())
    source = tmp_path / "*.tfrecord"
    result = _invoke("convert", saved / "model.keras", "-o", tmp_path / "out", "--examples", source)
    assert result.exit_code == 0, result.output
    assert "from 4 examples" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--examples", "nowhere.npz"], "examples: got nowhere.npz, expected an .npz file, or TFRecord files"),
        (["--examples", "{saved}/truncated.npz"], "truncated.npz is no .npz file of plain arrays"),
        (["--examples", "{saved}/empty.npz"], "empty.npz is no .npz file of plain arrays (No data left in file)"),
        (["--examples", "{saved}/array.npz"], "it is one array without a name"),
        (["--examples", "{saved}/scalar.npz"], "scalar.npz has 0 of image"),
        (["--examples", "{saved}/strings.npz"], "examples: got values that are no arrays of numbers"),
        (["--examples", "{saved}/cropped.npz"], "examples: input 'image' has shape (3, 4, 8, 1)"),
        (["--examples", "{saved}/*.npz"], "expected one; concatenate them"),
        (
            ["--examples", "{saved}/table.csv"],
            "table.csv holds no TFRecords of tf.Examples that fit the model's inputs: c",
        ),
        (["--examples", "{saved}"], "holds no TFRecords"),
        (["--labels", "{saved}/latin1.txt"], "latin1.txt: got a file that is not UTF-8"),
        (["--cache", "{saved}/labels.txt"], "cache: got"),
        (["--io-dtype", "uint8", "--io-dtype", "image=int8"], "got a type for all and types by name"),
        (["--calibration", "auto"], "got 'auto' without a score"),
        (["--calibration", "luck"], "luck"),
        (["--target", "moon"], "unknown target 'moon'"),
        ([], "a float model has no ranges to quantize with"),
    ],
)
def test_convert_ends_with_2_and_writes_nothing_when_something_is_wrong(
    saved: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [argument.format(saved=saved) for argument in arguments]
    result = _invoke("convert", saved / "model.keras", "-o", tmp_path / "out", *given)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_convert_writes_nothing_when_there_are_fewer_labels_than_classes(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    result = _convert(saved, tmp_path / "out", "--labels", tmp_path / "labels.txt")
    assert result.exit_code == 2
    assert "labels" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]


def test_convert_takes_labels_line_by_line_when_an_editor_marked_the_encoding(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes('\ufeffcat\r\nna\u00efve\u2028dog\r\n"owl"\r\n'.encode())
    result = _convert(saved, tmp_path / "out", "--labels", tmp_path / "labels.txt")
    assert result.exit_code == 0, result.output
    contract = json.loads((tmp_path / "out" / "io_contract.json").read_text())
    assert contract["outputs"][0]["labels"] == ["cat", "na\u00efve\u2028dog", '"owl"']


def test_convert_makes_the_directories_above_only_when_it_succeeds(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    output = tmp_path / "new" / "newer" / "out"
    assert _convert(saved, output, "--labels", tmp_path / "labels.txt").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]
    assert _convert(saved, output).exit_code == 0
    assert (output / "tflite").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.txt", "new"]


def test_convert_ends_with_2_before_it_loads_anything_when_the_output_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for output, message in (
        ("file", "exists already"),
        ("link", "exists already"),
        ("file/out", "cannot be written"),
    ):
        result = _invoke("convert", tmp_path / "no_model.keras", "-o", tmp_path / output)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


@pytest.mark.extended
def test_convert_leaves_nothing_that_looks_whole_when_it_is_killed_while_writing(saved: Path, tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from components.quantization.contract import device_files\n"
        "device_files.python_snippet = lambda contract: os._exit(9)\n"  # after the header, before the rest
        "from pipelines.__main__ import main\n"
        "main(sys.argv[1:])\n"
    )
    command = ["convert", saved / "model.keras", "-o", tmp_path / "out", "--examples", saved / "examples.npz"]
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script, *map(str, command)]).returncode == 9
    assert not (tmp_path / "out").exists()
    assert _convert(saved, tmp_path / "out").exit_code == 0


def test_inspect_shows_a_tflite_file_and_what_breaks_a_rule(saved: Path, tmp_path: Path) -> None:
    assert _convert(saved, tmp_path / "out").exit_code == 0
    good = _invoke("inspect", tmp_path / "out" / "tflite")
    assert good.exit_code == 0, good.output
    assert "input image: int8 [1, 8, 8, 1]" in good.output
    assert "no offender" in good.output
    converter = tf.lite.TFLiteConverter.from_keras_model(models.convolutional())
    (tmp_path / "float.tflite").write_bytes(converter.convert())
    bad = _invoke("inspect", tmp_path / "float.tflite", "--json")
    assert bad.exit_code == 1
    found: dict[str, Any] = json.loads(bad.output)
    assert not found["audit"]["integer_only"]
    (tmp_path / "broken.tflite").write_bytes(b"TFL3 but nothing else")
    assert _invoke("inspect", tmp_path / "broken.tflite").exit_code == 2


def test_attribute_shows_the_metric_at_each_step_and_writes_a_picture(tmp_path: Path) -> None:
    model = models.convolutional()
    model.save(tmp_path / "model.keras")
    images = models.images(30)
    np.savez(tmp_path / "labelled.npz", image=images, label=model.predict(images, verbose=0).argmax(-1))
    examples = ("--examples", tmp_path / "labelled.npz")
    assert _invoke("convert", tmp_path / "model.keras", "-o", tmp_path / "out", *examples).exit_code == 0
    float_model = ("--float-model", tmp_path / "model.keras")
    result = _invoke(
        "attribute", tmp_path / "out" / "tflite", *float_model, *examples, "--label-key", "label", "-o", tmp_path / "a"
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "a" / "attribution.json").read_text())
    # The labels are what the float model says.
    assert next(step for step in found["steps"] if step["name"] == "float")["metrics"] == {"accuracy": 1.0}
    assert "reference" in result.output
    assert (tmp_path / "a" / "attribution.svg").read_text().startswith("<svg")
    assert "integer default" in (tmp_path / "a" / "attribution.txt").read_text()


def test_float_edges_that_were_asked_for_are_notes_and_inspect_says_that_the_rest_is_integers(
    saved: Path, tmp_path: Path
) -> None:
    assert _convert(saved, tmp_path / "out", "--io-dtype", "float32").exit_code == 0
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert (audit["integer_only"], audit["offenders"]) == (True, [])
    assert {note["tensor"] for note in audit["notes"]} == {"", "image", "probabilities"}
    inspected = _invoke("inspect", tmp_path / "out" / "tflite")
    assert inspected.exit_code == 1
    assert (
        "but for image, probabilities, floats outside of one QUANTIZE or DEQUANTIZE: integer-only" in inspected.output
    )
    assert "float32 steps from the reference kernels" in _invoke("selftest", tmp_path / "out").output


def test_attribute_takes_a_model_of_any_size_at_that_of_the_file(tmp_path: Path) -> None:
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.InputLayer((None, None, 1), name="image"),
            layers.Conv2D(3, 3, name="conv"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(3, name="scores"),
        ]
    )
    model.save(tmp_path / "any.keras")
    np.savez(tmp_path / "examples.npz", image=models.images(8))
    examples = ["--examples", tmp_path / "examples.npz"]
    sized = ["-o", tmp_path / "out", "--input-shape", "image=8,8,1"]
    assert _invoke("convert", tmp_path / "any.keras", *sized, *examples).exit_code == 0
    found = _invoke("attribute", tmp_path / "out" / "tflite", "--float-model", tmp_path / "any.keras", *examples)
    assert found.exit_code == 0, found.output
    assert "\nconv " in found.output


def test_attribute_ends_with_2_when_asked_for_a_sensitivity_without_a_model_to_quantize(tmp_path: Path) -> None:
    for name in ("tflite", "model.keras"):
        (tmp_path / name).touch()
    arguments = (tmp_path / "tflite", "--float-model", tmp_path / "model.keras")
    result = _invoke("attribute", *arguments, "--examples", "examples.npz", "--sensitivity")
    assert result.exit_code == 2
    assert "--sensitivity: got no --qat-model" in result.output
