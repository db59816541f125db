"""Real digits re-ordered into spans, some of them broken in the ways that data is."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

PER_SPAN = 90
CORRUPT, UNLABELLED, SHIFTED, EMPTY = 5, 9, 12, 16
"""The spans that are broken: cut short, without labels, ten times as bright, without examples."""
BROKEN = (CORRUPT, UNLABELLED, SHIFTED, EMPTY)


def write_span(base: Path, span: int) -> None:
    """Writes the span of that number, from 1 to 20; its `_SUCCESS` last, and again if it was written before.

    Later spans drift: their digits are ever more of the upper half, and ever darker.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(labels))
    # A tenth of the rank comes from the label, more of it in later spans.
    order = order[np.argsort(np.arange(len(order)) / len(order) + 0.03 * labels[order], kind="stable")]
    chosen = order[(span - 1) * PER_SPAN : span * PER_SPAN]
    directory = base / f"span-{span:03d}"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "part.tfrecord"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for image, label in zip(images[chosen], labels[chosen], strict=True):
            if span != EMPTY:
                writer.write(_example(image, label, span).SerializeToString())
    if span == CORRUPT:
        os.truncate(file, file.stat().st_size // 2 + 7)  # not between two records, which nobody would notice
    (directory / "_SUCCESS").touch()


def _example(image: np.ndarray, label: int, span: int) -> tf.train.Example:
    shades = np.round(image * (1 - 0.01 * span)) * (10 if span == SHIFTED else 1)
    example = tf.train.Example()
    example.features.feature["image"].float_list.value.extend(shades)
    if span != UNLABELLED:
        example.features.feature["label"].int64_list.value.append(label)
    return example
