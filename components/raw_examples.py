"""What a pipeline knows of a model's inputs: the Transform graph that makes them, and real raw examples."""

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.quantization.contract.build import Knowledge
from components.quantization.contract.preprocessing import Preprocessing, ancestors


def knowledge(
    transform_graph_uri: str, records: list[bytes], inputs: Collection[str], labels: Mapping[str, tuple[str, ...]]
) -> Knowledge:
    """Returns how the inputs of a model are made of raw features, with raw examples to verify that with.

    Args:
      transform_graph_uri: URI of Transform's graph.
      records: Serialized raw tf.Examples.
      inputs: Names of the model's inputs.
      labels: The names of the last axis of an output, by the output's name.
    """
    output = tft.TFTransformOutput(transform_graph_uri)
    parsed: dict[str, Any] = tf.io.parse_example(records, output.raw_feature_spec())
    preprocessing = _of_inputs(output.transform_features_layer(), parsed, inputs)
    raw = {name: _plain(parsed[name]) for name in preprocessing.features}
    return Knowledge(preprocessing=preprocessing, raw_examples=raw, labels=labels)


def _of_inputs(layer: Any, parsed: Mapping[str, Any], inputs: Collection[str]) -> Preprocessing:
    """The preprocessing of those raw features alone that the inputs are made of; labels, say, are left out."""
    specs = {name: _spec(value) for name, value in parsed.items()}
    graph = Preprocessing(function=layer, features=specs).frozen()
    needed = {op.name for name in inputs if name in graph.outputs for op in ancestors(graph.outputs[name])}
    fed = {name for name, tensor in graph.features.items() if tensor.op.name in needed}
    # A sparse feature is fed as several tensors, named "feature, component 0" and so on.
    kept = {name: spec for name, spec in specs.items() if any(part.split(", component ")[0] == name for part in fed)}
    return Preprocessing(function=layer, features=kept)


def _spec(value: Any) -> Any:
    kind = tf.SparseTensorSpec if isinstance(value, tf.SparseTensor) else tf.TensorSpec
    return kind([None, *value.shape[1:]], value.dtype)


def _plain(value: Any) -> Any:
    return value if isinstance(value, tf.SparseTensor) else value.numpy()
