"""Small models of three outputs, and examples of what they shall say, which tests of evaluation share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.types import standard_artifacts

from components.quantization.contract.schema import Contract, Input, Output, Preparation, Verification

_SPEC = {
    "x": tf.io.FixedLenFeature([4], tf.float32),
    "kind": tf.io.FixedLenFeature([], tf.int64),
    "length": tf.io.FixedLenFeature([], tf.float32),
    "tags": tf.io.FixedLenFeature([3], tf.int64),
    "country": tf.io.FixedLenFeature([], tf.string),
    "weight": tf.io.FixedLenFeature([], tf.float32),
}
Outputs = dict[str, Any]


def _outputs(x: tf.Tensor, shift: float) -> Outputs:
    """A classifier of three classes, a length and three tags, all of four numbers."""
    # Of one class alone: a softmax does not see what is added to the scores of all.
    weights = tf.constant(np.random.default_rng(5).normal(size=(4, 3)) + np.array([shift, 0, 0]), tf.float32)
    return {
        "kind": tf.nn.softmax(x @ weights),
        "length": tf.reduce_sum(x[:, :2], axis=1, keepdims=True) + shift,
        "tags": tf.sigmoid(x @ weights[::-1]),
    }


class EvaluatedModel(tf.Module):
    """Some of the outputs; shifted, it is another model; scaled, its transform makes other inputs of the same x."""

    def __init__(self, names: tuple[str, ...], shift: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def transform(examples: tf.Tensor) -> Outputs:
            parsed = tf.io.parse_example(examples, _SPEC)
            columns = {name: parsed[name][:, None] for name in ("kind", "length", "country", "weight")}
            return {**parsed, **columns, "x": scale * parsed["x"]}

        @tf.function
        def dense(x: tf.Tensor) -> Outputs:
            return {name: value for name, value in _outputs(x / scale, shift).items() if name in names}

        self.transform = transform
        self.dense = dense

    def save(self, directory: Path, batch: int | None = None) -> types.Artifact:
        dense = self.dense.get_concrete_function(x=tf.TensorSpec([batch, 4], tf.float32, name="x"))
        signatures = {"transform_features": self.transform, "serving_dense": dense}
        tf.saved_model.save(self, str(directory / "Format-Serving"), signatures=signatures)
        return artifact_of(directory)

    def save_tflite(self, directory: Path) -> types.Artifact:
        dense = self.dense.get_concrete_function(x=tf.TensorSpec([1, 4], tf.float32, name="x"))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([dense], self)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        samples = np.random.default_rng(6).normal(size=(200, 1, 4)).astype(np.float32)
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        (directory / "Format-Serving").mkdir(parents=True)
        (directory / "Format-Serving" / "tflite").write_bytes(converter.convert())
        return artifact_of(directory)


def artifact_of(directory: Path) -> types.Artifact:
    """A model that says what it is of, as TFLiteIntConverter's do."""
    artifact = standard_artifacts.Model()
    artifact.uri = str(directory)
    for name, value in {"pipeline": "tests", "task": "tests.task", "profile": "cpu"}.items():
        artifact.set_string_custom_property(name, value)
    return artifact


def example_columns(count: int, **changes: Any) -> dict[str, np.ndarray]:
    """Features by name, (count, ...); labels are those of a model that sees a little noise."""
    random = np.random.default_rng(7)
    x = random.normal(size=(count, 4)).astype(np.float32)
    true = {name: value.numpy() for name, value in _outputs(x + random.normal(0, 0.3, x.shape), 0.0).items()}
    columns = {
        "x": x,
        "kind": true["kind"].argmax(1),
        "length": true["length"][:, 0],
        "tags": (true["tags"] > 0.5).astype(np.int64),
        "country": np.array([b"AT", b"BE", b"CH"])[random.integers(0, 3, count)],
        "weight": random.uniform(0, 3, count).astype(np.float32),
    }
    return {**columns, **changes}


def write_examples(columns: Mapping[str, np.ndarray], directory: Path) -> types.Artifact:
    """Examples of a split "eval", in three files."""
    split = directory / "Split-eval"
    split.mkdir(parents=True)
    for shard in range(3):
        with tf.io.TFRecordWriter(str(split / f"part-{shard}")) as writer:
            for row in range(shard, len(columns["country"]), 3):
                features = {name: _feature(np.ravel(values[row])) for name, values in columns.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.split_names = str(directory), '["eval"]'
    return artifact


def _feature(values: np.ndarray) -> tf.train.Feature:
    if values.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    if values.dtype.kind == "i":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values.tolist()))


def integer_contract(labels: tuple[str, ...]) -> Contract:
    """What the contract of a model with the one output "kind" says, as far as models are compared by it."""
    edge = {"position": 0, "tensor_index": 0, "dtype": "int8", "scale": 0.0625, "zero_point": 0}
    limits = {"real_min": -8.0, "real_max": 7.9375, "layout": "?"}
    preparation = Preparation(
        source="x",
        source_dtype="float32",
        source_shape=(1, 4),
        raw_features=("x",),
        kind="identity",
        shift=0,
        verified=Verification(method="exhaustive", count=256, mismatches=0),
    )
    return Contract(
        tflite_sha256="0" * 64,
        signature="serving_default",
        inputs=(Input(name="x", shape=(1, 4), preparation=preparation, **edge, **limits),),
        outputs=(Output(name="kind", shape=(1, 3), labels=labels, **edge, **limits),),
    )
