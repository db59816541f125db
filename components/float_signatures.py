"""What the float model's signatures say of it, without loading it."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tfx import types
from tfx.dsl.io import fileio

from components import model_artifact
from components.evaluation.probe import Shapes
from components.quantization.conversion.convert import DENSE_SIGNATURE
from components.quantization.qat.export import TRANSFORM_SIGNATURE


def signature_shapes(model: types.Artifact) -> tuple[Shapes, Shapes]:
    """Returns the shapes of what its transform gives, and of its outputs.

    Raises:
      ValueError: If it has no such signatures.
    """
    features, outputs = (_outputs(model)[name] for name in (TRANSFORM_SIGNATURE, DENSE_SIGNATURE))
    return _shapes(features), _shapes(outputs)


def dense_features(model: types.Artifact) -> frozenset[str]:
    """Returns the names of what its transform gives for every example; errors as `signature_shapes`."""
    made = _outputs(model)[TRANSFORM_SIGNATURE]
    return frozenset(name for name, info in made.items() if info.WhichOneof("encoding") == "name")


def _outputs(model: types.Artifact) -> dict[str, Any]:
    """What each of the two signatures gives, by their names."""
    with fileio.open(f"{model_artifact.serving_path(model)}/saved_model.pb", "rb") as file:
        signatures = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0].signature_def
    missing = [name for name in (TRANSFORM_SIGNATURE, DENSE_SIGNATURE) if name not in signatures]
    if missing:
        raise ValueError(f"the float model has no signature {', '.join(missing)}; connect QuantizeTrainer's")
    return {name: signatures[name].outputs for name in (TRANSFORM_SIGNATURE, DENSE_SIGNATURE)}


def _shapes(infos: Mapping[str, Any]) -> Shapes:
    return {
        name: None if info.tensor_shape.unknown_rank else tuple(tf.TensorShape(info.tensor_shape).as_list())
        for name, info in infos.items()
    }
