"""The Beam pass over the examples: all models on the same batches, TFMA's metrics, paired statistics."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.util import tfxio_utils
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components import model_artifact
from components.batched_metrics import features_of
from components.eval_config import label_kinds
from components.evaluation.measurements import INTEGER, LAST_BLESSED
from components.paired_evaluation import PairedPass
from components.paired_predictions import (
    EvaluatedModels,
    only_features,
    paired_predictions_extractor,
    sliced_batches_extractor,
)
from components.quantization.interpreter import IntegerModel

_BATCH_SIZE = 500


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPass:
    """A pass.

    Attributes:
      config: TFMA's configuration, of the models that are there and no others.
      models: What is run.
      paths: Where the models are, by name.
      features: Those that metrics need.
    """

    config: config_pb2.EvalConfig
    models: EvaluatedModels
    paths: Mapping[str, str]
    features: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, config: config_pb2.EvalConfig, artifacts: Mapping[str, types.Artifact], flipped_examples: int = 0
    ) -> "EvaluationPass":
        """Prepares a pass.

        Args:
          config: As `components.eval_config` made it; models without an artifact are left out.
          artifacts: Artifacts of the models by name.
          flipped_examples: How many examples that get another class are kept, of each output.
        """
        there = config_pb2.EvalConfig()
        there.CopyFrom(config)
        del there.model_specs[:]
        there.model_specs.extend(spec for spec in config.model_specs if spec.name in artifacts)
        spec = there.model_specs[0]
        features = features_of(there)
        integers = [name for name in (INTEGER, LAST_BLESSED) if name in artifacts]
        return cls(
            config=there,
            models=EvaluatedModels(
                saved_models={
                    name: model_artifact.serving_path(artifact)
                    for name, artifact in artifacts.items()
                    if name not in integers
                },
                tflites={name: model_artifact.read_tflite(artifacts[name]) for name in integers},
                transforms=_transforms(artifacts),
                label_keys=dict(spec.label_keys) or {"": spec.label_key},
                label_kinds=label_kinds(config),
                weight_key=spec.example_weight_key,
                flipped_examples=flipped_examples,
                kept=features
                | frozenset(key for one in there.slicing_specs for key in (*one.feature_keys, *one.feature_values)),
            ),
            features=features,
            paths={name: model_artifact.serving_path(artifact) for name, artifact in artifacts.items()},
        )

    def read(self, pipeline: beam.Pipeline, examples: list[types.Artifact], split: str) -> Any:
        """Reads a split as batches."""
        factory = tfxio_utils.get_tfxio_factory_from_artifact(
            examples=examples,
            telemetry_descriptors=["QuantizedEvaluator"],
            raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
        )
        batches = [
            pipeline | f"Read[{index}]" >> factory(io_utils.all_files_pattern(uri)).BeamSource(_BATCH_SIZE)
            for index, uri in enumerate(artifact_utils.get_split_uris(examples, split))
        ]
        return batches[0] if len(batches) == 1 else batches | beam.Flatten()

    def write(self, batches: Any, confidence: float, output_path: str) -> None:
        """Evaluates batches, and writes what `paired_evaluation` describes, at a URI that Beam's workers see."""
        # Never loaded by TFMA, whose predictions are not used; it wants several models where there is a baseline.
        shared = [
            tfma.EvalSharedModel(model_name=name, model_path=path, model_type=constants.TF_GENERIC)
            for name, path in self.paths.items()
        ]
        paired = PairedPass(
            models=self.models.names,
            outputs=tuple(self.models.label_keys),
            kinds=self.models.label_kinds,
            limits=self._limits(),
            confidence=confidence,
        )
        usual: dict[str, Any] = {"eval_shared_model": shared, "eval_config": self.config}
        _ = (
            batches
            | "OnlyFeatures" >> only_features(self.models.kept)
            | tfma.ExtractEvaluateAndWriteResults(
                **usual,
                extractors=[
                    tfma.extractors.FeaturesExtractor(self.config),
                    paired_predictions_extractor(self.models),
                    sliced_batches_extractor(self.config, self.features),
                ],
                evaluators=[*tfma.default_evaluators(**usual), *paired.evaluators()],
                writers=[*tfma.default_writers(output_path, **usual), paired.writer(output_path)],
            )
        )

    def _limits(self) -> dict[tuple[str, str], tuple[float, float]]:
        found = {name: IntegerModel(tflite).output_limits for name, tflite in self.models.tflites.items()}
        single = "" in self.models.label_keys
        return {
            (model, "" if single else output): limits
            for model, outputs in found.items()
            for output, limits in outputs.items()
        }


def own_transform(model: types.Artifact, baseline: types.Artifact) -> str:
    """Returns the directory of the SavedModel whose transform the baseline was made with; "" if it is the model's own.

    What a transform has learned of its examples, such as a mean, is another in each: fed by the model's, the baseline
    would not get the inputs that it gets on a device.
    """
    ours, theirs = (one.get_string_custom_property("transform_sha256") for one in (model, baseline))
    uri = baseline.get_string_custom_property("float_model_uri")
    return os.path.join(uri, model_artifact.SERVING_DIR) if ours and theirs and ours != theirs else ""


def _transforms(artifacts: Mapping[str, types.Artifact]) -> dict[str, str]:
    if INTEGER not in artifacts or LAST_BLESSED not in artifacts:
        return {}
    path = own_transform(artifacts[INTEGER], artifacts[LAST_BLESSED])
    return {LAST_BLESSED: path} if path else {}
