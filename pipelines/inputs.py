"""The raw examples of a run: written where the task can, and checked before anything starts."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf

from components.quantization.record_files import CORRUPT, FRAME_BYTES, is_whole, records_of
from components.retraining.spans import BrokenExamplesError, SpanSource
from pipelines import tasks
from pipelines.config import PipelineConfig

# Of larger data, the first files up to here are checked; what lies beyond fails in its component.
_CHECKED_BYTES = 256 * 1024**2
# Somebody else's file, a directory that is named as one, or a link to nothing.
_UNREADABLE = (tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError, tf.errors.NotFoundError)
_BATCH = 1024


def prepare_examples(config: PipelineConfig, checked_bytes: float = _CHECKED_BYTES) -> int:
    """Makes sure that a run has examples that its task can parse.

    Args:
      config: The config.
      checked_bytes: Of larger data, and of larger spans, only the first files up to here are looked at.

    Returns:
      The number of examples that were checked.

    Raises:
      BrokenExamplesError: If there are none, a file is corrupt, or a feature is missing or has another type or shape.
      ValueError: If they cannot be reached or written.
    """
    task = tasks.load_task(config.task)
    if config.spans:
        source = config.spans if config.spans.selected else config.spans.ending_at()
        return sum(_check_span(source, span, task.RAW_FEATURE_SPEC, checked_bytes) for span in source.selected)
    if not config.examples_dir and hasattr(task, "write_examples") and not _exists(config.examples_uri):
        _write_examples(task, config.examples_uri)
    files = _files(config.examples_uri)
    with _blaming(f"the examples in {config.examples_uri}"):
        checked = _check_files(files, task.RAW_FEATURE_SPEC, checked_bytes)
    if not checked:
        raise BrokenExamplesError(f"the TFRecord files in {config.examples_uri} are empty; put tf.Examples there")
    return checked


def _check_span(source: SpanSource, span: int, spec: dict[str, Any], checked_bytes: float) -> int:
    try:
        with _blaming(f"span {span}"):
            files = sorted(tf.io.gfile.glob(source.files_of(span)))
            checked = _check_files(files, spec, checked_bytes)
        if not checked:
            what = "its TFRecord files are empty" if files else f"no files {source.files_of(span)}"
            raise BrokenExamplesError(f"span {span}: {what}; put tf.Examples there")
    except BrokenExamplesError as error:
        error.span = span
        raise
    return checked


def _check_files(files: list[str], spec: dict[str, Any], checked_bytes: float) -> int:
    return sum(_check_file(file, spec, checked_bytes) for file in _first_files(files, checked_bytes))


@contextlib.contextmanager
def _blaming(examples: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise BrokenExamplesError(f"{examples} cannot be read: {_first_line(error)}") from error


def _exists(directory: str) -> bool:
    try:
        there: bool = tf.io.gfile.exists(directory)
    except tf.errors.OpError as error:
        raise ValueError(
            f"{directory} cannot be read: {_first_line(error)}; check its name and the credentials"
        ) from error
    return there


def _write_examples(task: ModuleType, directory: str) -> None:
    """Lets the task write into a temporary directory, which then takes its name or is uploaded."""
    if "://" in directory:
        with tempfile.TemporaryDirectory() as scratch:
            task.write_examples(Path(scratch))
            _upload(Path(scratch), directory)
        return
    parent = Path(directory).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            written = Path(scratch) / "examples"
            written.mkdir()
            task.write_examples(written)
            written.rename(directory)
    except OSError as error:
        raise ValueError(f"{directory} cannot be written: {error.strerror}; pass another --root") from error


def _upload(source: Path, directory: str) -> None:
    """Copies files to object storage: all, or, if one fails, none."""
    try:
        for file in sorted(source.iterdir()):
            tf.io.gfile.copy(str(file), f"{directory}/{file.name}")
    except tf.errors.OpError as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.rmtree(directory)
        raise ValueError(
            f"{directory} cannot be written: {_first_line(error)}; check its name and the credentials"
        ) from error


def _first_line(error: tf.errors.OpError) -> str:
    return str(error.message).split("\n")[0]


def _files(directory: str) -> list[str]:
    """The files that ImportExampleGen will read."""
    if not (_exists(directory) and tf.io.gfile.isdir(directory)):
        raise ValueError(f"no directory {directory} with examples; put TFRecord files of tf.Examples there")
    paths = [os.path.join(directory, name) for name in sorted(tf.io.gfile.listdir(directory))]
    files = [path for path in paths if not tf.io.gfile.isdir(path)]
    if not files:
        raise ValueError(f"no files in {directory}; put TFRecord files of tf.Examples there")
    return files


def _first_files(files: list[str], checked_bytes: float) -> list[str]:
    """As many as are checked."""
    sizes = itertools.accumulate(tf.io.gfile.stat(file).length for file in files)
    return [file for file, total in zip(files, sizes, strict=True) if total <= checked_bytes] or files[:1]


def _check_file(file: str, spec: dict[str, Any], checked_bytes: float) -> int:
    """Reads records up to the limit and parses them; returns their number."""
    count = 0
    for batch in _batches(file, checked_bytes):
        try:
            tf.io.parse_example(batch, spec)
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:  # the second by TensorFlow's message
            index = next((i for i, record in enumerate(batch) if _wrong(record, spec)), 0)
            what = _wrong(batch[index], spec) or f"or one soon after: {error}"
            raise BrokenExamplesError(f"{file}, record {count + index}: {what}") from error
        count += len(batch)
    return count


def _batches(file: str, checked_bytes: float) -> Iterator[list[bytes]]:
    records = records_of(file)
    batch: list[bytes] = []
    count = size = 0
    try:
        for record in records.as_numpy_iterator():
            batch.append(record)
            count += 1
            size += len(record)
            if len(batch) == _BATCH:
                yield batch
                batch = []
            if size > checked_bytes:
                break
        else:
            if not is_whole(file, size + count * FRAME_BYTES):
                raise BrokenExamplesError(CORRUPT.format(file, count))
    except tf.errors.DataLossError as error:
        raise BrokenExamplesError(CORRUPT.format(file, count)) from error
    if batch:
        yield batch


def _wrong(record: bytes, spec: dict[str, Any]) -> str:
    """Says what keeps a record from being parsed, empty if nothing does."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception:  # protobuf 3 and 6 raise different errors
        return "not a serialized tf.Example; write tf.train.Examples"
    kinds = {tf.float32: "float_list", tf.int64: "int64_list", tf.string: "bytes_list"}
    for name, feature in spec.items():
        there = features[name].WhichOneof("kind") if name in features else None
        expected = kinds[feature.dtype]
        fixed = isinstance(feature, tf.io.FixedLenFeature)
        if there is None and fixed and feature.default_value is None:
            return f"feature {name!r} is missing; there are {', '.join(sorted(features)) or 'none'}"
        if there is not None and there != expected:
            return f"feature {name!r} is a {there}, expected a {expected}"
        if there is not None and fixed:
            values = len(getattr(features[name], expected).value)
            wanted = tf.TensorShape(feature.shape).num_elements()
            if values != wanted:
                return f"feature {name!r} has {values} values, expected {wanted} for shape {list(feature.shape)}"
    return ""
