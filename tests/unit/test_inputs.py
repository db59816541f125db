import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from components.retraining.spans import BrokenExamplesError, SpanSource
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.inputs import prepare_examples


def _record(features: dict[str, list[float] | list[int]]) -> bytes:
    example = tf.train.Example()
    for name, values in features.items():
        if isinstance(values[0], float):
            example.features.feature[name].float_list.value.extend(values)
        else:
            example.features.feature[name].int64_list.value.extend(values)
    return example.SerializeToString()


_GOOD = _record({"image": [0.0] * 64, "label": [3]})


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return dataclasses.replace(load_config("digits"), root=str(tmp_path / "root"), examples_dir=str(tmp_path / "data"))


def _write(directory: str, *records: bytes) -> Path:
    Path(directory).mkdir()
    path = Path(directory) / "part.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_prepare_examples_writes_the_digits_once(tmp_path: Path) -> None:
    config = dataclasses.replace(load_config("digits"), root=str(tmp_path))
    assert prepare_examples(config) == 1797
    written = (tmp_path / "examples" / "digits.tfrecord").stat().st_mtime_ns
    assert prepare_examples(config) == 1797
    assert (tmp_path / "examples" / "digits.tfrecord").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == ["examples"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _garble(path: Path) -> None:
    path.write_bytes(b"no TFRecord at all, but a text")


@pytest.mark.parametrize("damage", [_cut, _garble])
def test_prepare_examples_raises_when_a_file_is_corrupt(config: PipelineConfig, damage: Callable[[Path], None]) -> None:
    damage(_write(config.examples_dir, _GOOD, _GOOD))
    with pytest.raises(ValueError, match=r"part\.tfrecord is corrupt after record [01]: not a TFRecord file or cut"):
        prepare_examples(config)


def test_prepare_examples_raises_when_a_file_ends_within_the_frame_of_a_record(config: PipelineConfig) -> None:
    path = _write(config.examples_dir, _GOOD, _GOOD)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 7])  # one record, and 7 bytes, which TensorFlow overlooks
    with pytest.raises(ValueError, match=r"part\.tfrecord is corrupt after record 1: not a TFRecord file or cut"):
        prepare_examples(config)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (_record({"label": [3]}), "feature 'image' is missing; there are label"),
        (_record({"image": [0.0] * 64}), "feature 'label' is missing; there are image"),
        (_record({"image": [0.0] * 63, "label": [3]}), r"feature 'image' has 63 values, expected 64 for shape \[64\]"),
        (_record({"image": [0] * 64, "label": [3]}), "feature 'image' is a int64_list, expected a float_list"),
        (b"\xff no example", "not a serialized tf.Example"),
    ],
    ids=["no image", "no label", "short", "dtype", "other proto"],
)
def test_prepare_examples_names_record_and_feature_when_one_is_wrong(
    config: PipelineConfig, record: bytes, message: str
) -> None:
    _write(config.examples_dir, _GOOD, _GOOD, record)
    with pytest.raises(ValueError, match=rf"part\.tfrecord, record 2: {message}"):
        prepare_examples(config)


def test_prepare_examples_raises_when_there_is_nothing_to_read(config: PipelineConfig) -> None:
    with pytest.raises(ValueError, match="no directory .* with examples"):
        prepare_examples(config)
    Path(config.examples_dir).mkdir()
    with pytest.raises(ValueError, match="no files in "):
        prepare_examples(config)
    Path(config.examples_dir).rmdir()
    _write(config.examples_dir)
    with pytest.raises(ValueError, match="are empty; put tf.Examples there"):
        prepare_examples(config)


def test_prepare_examples_raises_when_a_file_is_a_link_to_nothing(config: PipelineConfig, tmp_path: Path) -> None:
    good = _write(config.examples_dir, _GOOD)
    good.with_name("zzz.tfrecord").symlink_to("/nowhere")
    with pytest.raises(BrokenExamplesError, match=r"the examples in .* cannot be read: .*zzz\.tfrecord; No such file"):
        prepare_examples(config)
    span = tmp_path / "span-1"
    span.mkdir()
    (span / "_SUCCESS").touch()
    (span / "a.tfrecord").symlink_to("/nowhere")
    spans = SpanSource(pattern=f"{tmp_path}/span-{{SPAN}}/*.tfrecord")
    with pytest.raises(BrokenExamplesError, match=r"span 1 cannot be read: .*a\.tfrecord; No such file") as raised:
        prepare_examples(dataclasses.replace(config, examples_dir="", spans=spans))
    assert raised.value.span == 1
