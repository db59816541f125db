"""Transforms that do the same have the same hash, and no others."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from components.quantization.file_hash import sha256
from components.transform_hash import transform_sha256

Transform = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
_NUMBERS = {"x": tf.io.FixedLenFeature([], tf.float32)}
_WORDS = {"x": tf.io.FixedLenFeature([], tf.string)}


def _centered(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {"y": inputs["x"] - tft.mean(inputs["x"])}


def _doubled(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {"y": inputs["x"] + inputs["x"]}


def _looked_up(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {"y": tft.compute_and_apply_vocabulary(inputs["x"])}


def _graph(directory: Path, transform: Transform, spec: dict[str, tf.io.FixedLenFeature], values: list[object]) -> Path:
    """Writes a TransformGraph as TFX's Transform does."""
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    with tft_beam.Context(temp_dir=tempfile.mkdtemp(dir=directory.parent)):
        made = ([{"x": value} for value in values], metadata) | tft_beam.AnalyzeDataset(transform)
        made | tft_beam.WriteTransformFn(str(directory))
    return directory


def test_transform_hash_is_of_what_it_does_and_not_of_its_bytes(tmp_path: Path) -> None:
    first = _graph(tmp_path / "first", _looked_up, _WORDS, ["a", "b"])
    _graph(tmp_path / "between", _centered, _NUMBERS, [1.0, 2.0])
    second = _graph(tmp_path / "second", _looked_up, _WORDS, ["a", "b"])
    assert sha256(first) != sha256(second)
    assert transform_sha256(first) == transform_sha256(second)


@pytest.mark.parametrize(
    ("transform", "spec", "values", "others"),
    [(_centered, _NUMBERS, [1.0, 2.0], [1.0, 4.0]), (_looked_up, _WORDS, ["a", "b"], ["a", "c"])],
    ids=["mean", "vocabulary"],
)
def test_transform_hash_tells_what_was_learned(
    tmp_path: Path,
    transform: Transform,
    spec: dict[str, tf.io.FixedLenFeature],
    values: list[object],
    others: list[object],
) -> None:
    first = _graph(tmp_path / "first", transform, spec, values)
    assert transform_sha256(first) != transform_sha256(_graph(tmp_path / "other", transform, spec, others))


def test_transform_hash_tells_code(tmp_path: Path) -> None:
    first = _graph(tmp_path / "first", _centered, _NUMBERS, [0.0])
    assert transform_sha256(first) != transform_sha256(_graph(tmp_path / "other", _doubled, _NUMBERS, [0.0]))
