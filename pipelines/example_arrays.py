"""Examples of the command line: arrays by name, out of an .npz file or TFRecords of tf.Examples."""

import glob
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.quantization.record_files import records_of

Arrays = dict[str, npt.NDArray[Any]]

_BATCH = 100


def read_arrays(source: str, features: Mapping[str, tf.TensorSpec], label_key: str = "") -> Arrays:
    """Reads the features of a model, and perhaps its labels.

    Args:
      source: Path of an .npz file of arrays by feature name, of shape (examples, ...); or of TFRecord files of
        tf.Examples, also as a pattern such as "data/*.tfrecord", gzipped ones ending in .gz.
      features: Specs of the features by name, with a first dimension for the examples.
      label_key: Name of the labels, one integer or float each; "" if there are none.

    Returns:
      Arrays by name, of equal lengths.

    Raises:
      ValueError: If there is no such file, it lacks a feature, or lengths differ.
    """
    paths = sorted(glob.glob(source)) or ([source] if os.path.exists(source) else [])
    if not paths:
        raise ValueError(f"examples: got {source}, expected an .npz file, or TFRecord files; there is none")
    names = [*features, *([label_key] if label_key else [])]
    if source.endswith(".npz") and len(paths) > 1:
        raise ValueError(f"examples: got {len(paths)} .npz files for {source}, expected one; concatenate them")
    arrays = _of_npz(Path(paths[0])) if source.endswith(".npz") else _of_records(paths, features, label_key)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"examples: {source} has no {', '.join(missing)}; there are {', '.join(sorted(arrays))}")
    lengths = {name: len(arrays[name]) if arrays[name].ndim else 0 for name in names}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        listed = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ValueError(f"examples: {source} has {listed}, expected as many of each, and at least one")
    return {name: arrays[name] for name in names}


def batches(arrays: Arrays, size: int = _BATCH) -> list[Arrays]:
    """Splits arrays of equal lengths into batches."""
    count = len(next(iter(arrays.values())))
    return [{name: values[at : at + size] for name, values in arrays.items()} for at in range(0, count, size)]


def _of_npz(path: Path) -> Arrays:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise ValueError("it is one array without a name")
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"examples: {path} is no .npz file of plain arrays ({error}); write one with np.savez"
        ) from error


def _of_records(paths: list[str], features: Mapping[str, tf.TensorSpec], label_key: str) -> Arrays:
    spec: dict[str, Any] = {
        name: tf.io.FixedLenFeature(feature.shape[1:], tf.float32 if feature.dtype.is_floating else tf.int64)
        for name, feature in features.items()
    }
    try:
        records = [record for path in paths for record in _records(path)]
        parsed = tf.io.parse_example(tf.constant(records, tf.string), spec) if records else {}
        if label_key and records:
            parsed[label_key] = _labels(records, label_key)
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message)  # where in TensorFlow
        raise ValueError(
            f"examples: {paths[0]} holds no TFRecords of tf.Examples that fit the model's inputs: {reason}"
        ) from error
    return {name: np.asarray(values) for name, values in parsed.items()}


def _records(path: str) -> Iterator[bytes]:
    yield from records_of(path).as_numpy_iterator()


def _labels(records: list[bytes], key: str) -> npt.NDArray[Any]:
    """One label for each example, all of them integers or all floats."""
    rows = []
    for record in records:
        feature = tf.train.Example.FromString(record).features.feature[key]
        values = feature.int64_list.value or feature.float_list.value
        if len(values) != 1:
            raise ValueError(f"examples: got {len(values)} numbers for label {key!r} of one of them, expected one")
        rows.append(values[0])
    return np.array(rows)
