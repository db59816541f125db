"""`python -m pipelines convert`, `selftest`, and `inspect` of the file that it wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
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
    return directory


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
    result = _invoke("convert", saved / "model.keras", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_convert_writes_nothing_when_there_are_fewer_labels_than_classes(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    result = _convert(saved, tmp_path / "out", "--labels", tmp_path / "labels.txt")
    assert result.exit_code == 2
    assert "labels" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]


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
    assert not found["integer_only"]
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
