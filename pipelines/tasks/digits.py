"""Handwritten digits: the 1,797 images of 8x8 pixels that ship inside scikit-learn.

https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

IMAGE = "image"
LABEL = "label"
_PIXELS = 64
_BRIGHTEST = 16.0
_CLASSES = 10
LABELS = tuple("0123456789")
_MOMENTUM = 0.9  # of the moving averages: an epoch has 23 steps, too few for Keras's 0.99

RAW_FEATURE_SPEC = {
    IMAGE: tf.io.FixedLenFeature([_PIXELS], tf.float32),  # 0..16, row by row
    LABEL: tf.io.FixedLenFeature([1], tf.int64),  # 0..9
}


def write_examples(directory: Path) -> None:
    """Writes the images as one TFRecord file of tf.Examples."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    with tf.io.TFRecordWriter(str(directory / "digits.tfrecord")) as writer:
        for image, label in zip(images, labels, strict=True):
            features = {
                IMAGE: tf.train.Feature(float_list=tf.train.FloatList(value=image)),
                LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def preprocessing_fn(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Images to 0..1 and shape (batch, 8, 8, 1); labels to shape (batch, 1)."""
    image = tf.reshape(inputs[IMAGE], [-1, 8, 8, 1]) / _BRIGHTEST
    return {IMAGE: image, LABEL: tf.reshape(inputs[LABEL], [-1, 1])}


def input_fn(
    files: Sequence[str], feature_spec: Mapping[str, Any], batch_size: int, shuffle_seed: int | None
) -> tf.data.Dataset:
    """Parses whole batches; the shuffle holds the split, which is small."""
    records = tf.data.TFRecordDataset(list(files))
    if shuffle_seed is not None:
        records = records.shuffle(10_000, seed=shuffle_seed, reshuffle_each_iteration=True)

    def parse(batch: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        features = tf.io.parse_example(batch, dict(feature_spec))
        label = features.pop(LABEL)
        return features, label

    return records.batch(batch_size).map(parse)


def build_model(hyperparameters: Mapping[str, Any]) -> tf_keras.Model:
    """Two convolutions with batch normalization and one hidden layer: 43,242 parameters."""
    del hyperparameters  # none are tuned
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.InputLayer((8, 8, 1), name=IMAGE),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(momentum=_MOMENTUM, name="conv1_normalization"),
            layers.ReLU(name="conv1_relu"),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv2"),
            layers.BatchNormalization(momentum=_MOMENTUM, name="conv2_normalization"),
            layers.ReLU(name="conv2_relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(_CLASSES, activation="softmax", name="probabilities"),
        ],
        name="digits",
    )
    model.compile(
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=[tf_keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model
