"""CIFAR-10 with MLPerf Tiny's ResNet8, a task and a pipeline as a user writes them; the data is beside the repository.

Run as a program with a root, this file runs the pipeline there, on a part of the images.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from components.evaluation.gates import Gates
from components.quantization.qat.parameters import TrainingParameters
from pipelines.config import PipelineConfig

SHARED = Path(__file__).parent.parent.parent / "shared"
IMAGE, LABEL = "image", "label"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RAW_FEATURE_SPEC = {
    IMAGE: tf.io.FixedLenFeature([], tf.string),  # an encoded JPEG, 32x32 RGB
    LABEL: tf.io.FixedLenFeature([1], tf.int64),  # 0..9
}
_EXAMPLES = 4_000


def preprocessing_fn(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Images to 0..255 and shape (batch, 32, 32, 3); labels to shape (batch, 1)."""

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.io.decode_jpeg(encoded, channels=3), tf.float32)

    flat = tf.reshape(inputs[IMAGE], [-1])
    images = tf.map_fn(decode, flat, fn_output_signature=tf.TensorSpec([None, None, 3], tf.float32))
    return {IMAGE: tf.reshape(images, [-1, 32, 32, 3]), LABEL: tf.reshape(inputs[LABEL], [-1, 1])}


def input_fn(
    files: Sequence[str], feature_spec: Mapping[str, Any], batch_size: int, shuffle_seed: int | None
) -> tf.data.Dataset:
    """Parses whole batches."""
    records = tf.data.TFRecordDataset(list(files))
    if shuffle_seed is not None:
        records = records.shuffle(_EXAMPLES, seed=shuffle_seed)

    def parse(batch: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        features = tf.io.parse_example(batch, dict(feature_spec))
        return {IMAGE: features[IMAGE]}, features[LABEL]

    return records.batch(batch_size).map(parse)


def build_model(hyperparameters: Mapping[str, Any]) -> tf_keras.Model:
    """The pretrained model, which other JPEGs cost a tenth of its accuracy."""
    del hyperparameters
    pretrained = tf_keras.models.load_model(SHARED / "models/mlperf_tiny/pretrainedResnet.h5", compile=False)
    model = tf_keras.models.clone_model(pretrained, input_tensors=tf_keras.Input((32, 32, 3), name=IMAGE))
    model.set_weights(pretrained.get_weights())
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def config(root: Path) -> PipelineConfig:
    """One epoch of each kind of training."""
    return PipelineConfig(
        name="cifar10",
        task="tests.cifar10_run",
        label_key=LABEL,
        root=str(root),
        training=TrainingParameters(
            float_epochs=1, qat_epochs=1, batch_size=64, float_learning_rate=1e-4, qat_learning_rate=1e-4
        ),
        gates=Gates.of("accuracy >= 0.6", "accuracy drop <= 0.03"),
        slices=((LABEL,),),
    )


def run(root: Path) -> None:
    """Runs the pipeline, on its own examples below the root."""
    from pipelines.pipeline import create_pipeline
    from pipelines.runners import load_runner

    made = config(root)
    directory = Path(made.examples_uri)
    directory.mkdir(parents=True)
    records = tf.data.TFRecordDataset(sorted(map(str, SHARED.glob("data/cifar10/train-*.tfrecord"))))
    with tf.io.TFRecordWriter(str(directory / "cifar10.tfrecord")) as writer:
        for record in itertools.islice(records.as_numpy_iterator(), _EXAMPLES):
            writer.write(record)
    load_runner("local").run(create_pipeline(made))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
