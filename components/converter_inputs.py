"""What TFLiteIntConverter reads: examples to calibrate, score and verify with, and how raw features become inputs."""

import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata import schema_utils
from tfx import types
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components import drift_statistics, example_files
from components.calibration_origin import with_origin
from components.quantization import records
from components.quantization.calibration_set import BY_CONTENT, CalibrationSet
from components.quantization.contract.build import Knowledge
from components.quantization.contract.device_files import GOLDEN_EXAMPLES
from components.quantization.contract.preprocessing import Preprocessing, ancestors
from components.quantization.conversion import scoring

_BATCH = 100
_SCORED_EXAMPLES = 1000
# A split may have millions, of megabytes each; so many say where the values lie.
_COMPARED_EXAMPLES = 10_000

Batch = dict[str, Any]


class ConverterInputs:
    """The examples that an execution of the component was given."""

    def __init__(self, input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> None:
        """Takes what the executor is given; reads nothing."""
        self._artifacts = input_dict
        self._properties = exec_properties

    @functools.cached_property
    def _representative(self) -> list[bytes]:
        return self._sample("examples", self._properties["split"], self._properties["representative_examples"])

    def representative_batches(self) -> list[Batch]:
        """Returns the sample that ranges are calibrated with: dense features by name, in batches."""
        return self._in_batches(self._representative)

    def calibration_set(self) -> CalibrationSet:
        """Returns which examples that sample is."""
        split, seed = self._properties["split"], self._properties["seed"]
        found = CalibrationSet(
            examples=len(self._representative),
            chosen=BY_CONTENT,
            seed=seed,
            sha256=records.fingerprint(self._representative),
        )
        raw = self._artifacts.get("raw_examples") or []
        return with_origin(found, "TFLiteIntConverter", split, self._artifacts["examples"], raw)

    @property
    def sampled_by(self) -> tuple[str, int]:
        """The split of that sample, and the seed that chose it."""
        return self._properties["split"], self._properties["seed"]

    @property
    def statistics(self) -> drift_statistics.Statistics | None:
        """What StatisticsGen has of the raw examples of that split; None if it is not connected."""
        if not self._artifacts.get("statistics"):
            return None
        statistics = artifact_utils.get_single_instance(self._artifacts["statistics"])
        return drift_statistics.of_split(statistics, self._properties["split"])

    def attribution_batches(self) -> list[Batch]:
        """Returns the sample of the golden split on which is measured where accuracy went, labels included."""
        properties = self._properties
        return self._batches(properties["golden_split"], properties["attribution_examples"])

    def split_batches(self) -> Iterator[Batch]:
        """Yields the split that ranges are calibrated with, its first ten thousand examples, in batches."""
        examples = itertools.islice(
            example_files.read_split(self._artifacts["examples"], self._properties["split"]), _COMPARED_EXAMPLES
        )
        spec = self._feature_spec()
        while some := list(itertools.islice(examples, _BATCH)):
            yield _parsed(some, spec)

    def score(self) -> Callable[[bytes], float]:
        """Returns what calibration "auto" chooses by: accuracy on the eval split.

        Raises:
          ValueError: If the label is no feature.
        """
        label = self._properties["label_key"]
        batches = self._batches(self._properties["golden_split"], _SCORED_EXAMPLES)
        if label not in batches[0]:
            raise ValueError(f"label_key: got {label!r}, expected one of {', '.join(sorted(batches[0]))}")
        return scoring.accuracy(batches, np.concatenate([batch[label].ravel() for batch in batches]))

    def knowledge(self, inputs: Collection[str], labels: Mapping[str, tuple[str, ...]]) -> Knowledge:
        """Returns how the inputs of a model are made of raw features, with raw examples to verify that with.

        Args:
          inputs: Names of the model's inputs.
          labels: The names of the last axis of an output, by the output's name.
        """
        if not (self._artifacts.get("raw_examples") and self._artifacts.get("transform_graph")):
            return Knowledge(labels=labels)
        sample = self._sample("raw_examples", self._properties["golden_split"], GOLDEN_EXAMPLES)
        output = tft.TFTransformOutput(artifact_utils.get_single_uri(self._artifacts["transform_graph"]))
        parsed: dict[str, Any] = tf.io.parse_example(sample, output.raw_feature_spec())
        preprocessing = _of_inputs(output.transform_features_layer(), parsed, inputs)
        raw = {name: _plain(parsed[name]) for name in preprocessing.features}
        return Knowledge(preprocessing=preprocessing, raw_examples=raw, labels=labels)

    def _sample(self, key: str, split: str, count: int) -> list[bytes]:
        return example_files.sample_split(self._artifacts[key], split, count, self._properties["seed"])

    def _batches(self, split: str, count: int) -> list[Batch]:
        return self._in_batches(self._sample("examples", split, count))

    def _in_batches(self, sample: list[bytes]) -> list[Batch]:
        spec = self._feature_spec()
        return [_parsed(sample[at : at + _BATCH], spec) for at in range(0, len(sample), _BATCH)]

    def _feature_spec(self) -> dict[str, Any]:
        """How the examples are parsed: as the transform graph writes them, or as the schema says."""
        spec: dict[str, Any]
        if self._artifacts.get("transform_graph"):
            uri = artifact_utils.get_single_uri(self._artifacts["transform_graph"])
            spec = tft.TFTransformOutput(uri).transformed_feature_spec()
            return spec
        schema = io_utils.SchemaReader().read(
            io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(self._artifacts["schema"]))
        )
        spec = schema_utils.schema_as_feature_spec(schema).feature_spec
        return spec


def _parsed(examples: list[bytes], spec: Mapping[str, Any]) -> Batch:
    """The dense features of serialized examples."""
    batch = tf.io.parse_example(examples, spec)
    return {name: value.numpy() for name, value in batch.items() if isinstance(value, tf.Tensor)}


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
