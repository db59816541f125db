"""The Beam pass over the examples: all models on the same batches, TFMA's metrics, paired statistics."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2
from tfx import types

from components import model_artifact
from components.baseline_model import own_transform
from components.batched_metrics import features_of
from components.eval_config import label_kinds
from components.evaluation.measurements import FLOAT, INTEGER, LAST_BLESSED
from components.evaluation_files import EvaluationFiles
from components.example_files import split_files
from components.float_signatures import dense_features
from components.paired_evaluation import SUMS, PairedPass, sums_of_batch
from components.paired_predictions import EvaluatedModels, predicted
from components.quantization.interpreter import IntegerModel
from components.sliced_batches import sliced_batches


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
        needed = features | {key for one in there.slicing_specs for key in (*one.feature_keys, *one.feature_values)}
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
                kept=needed,
                raw=needed - dense_features(artifacts[FLOAT]),
            ),
            features=features,
            paths={name: model_artifact.serving_path(artifact) for name, artifact in artifacts.items()},
        )

    def read(self, pipeline: beam.Pipeline, examples: list[types.Artifact], split: str) -> Any:
        """Finds the files of a split, each of which one worker reads; raises ValueError if there is no such split."""
        return pipeline | "Files" >> beam.Create(split_files(examples, split))

    def write(self, files: Any, confidence: float, output_path: str, threads: int = 1) -> None:
        """Evaluates files of examples; writes what `paired_evaluation` describes.

        Args:
          files: Paths of TFRecord files, as `read` finds them.
          confidence: Of intervals.
          output_path: A URI that Beam's workers see.
          threads: How many threads the models of each of them may use together, as `predicted` shares them out.
        """
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
        )
        written = EvaluationFiles(path=output_path, config=self.config, model_paths=self.paths, confidence=confidence)
        batches = predicted(files, self.models, threads)
        slices = batches | "Slice" >> sliced_batches(self.config, self.features)
        # Not by tfma.ExtractAndEvaluate, which takes a dozen steps more to count the bytes of what it is given.
        (evaluator,) = tfma.default_evaluators(eval_shared_model=shared, eval_config=self.config)
        evaluation = slices | evaluator.stage_name >> evaluator.ptransform
        sums = (
            batches | "SumBatches" >> beam.FlatMap(sums_of_batch),
            slices | "SumSlices" >> beam.FlatMap(paired.sums),
        )
        _ = {**evaluation, SUMS: sums | "AllSums" >> beam.Flatten()} | "WriteFiles" >> written.transform()

    def _limits(self) -> dict[tuple[str, str], tuple[float, float]]:
        found = {name: IntegerModel(tflite).output_limits for name, tflite in self.models.tflites.items()}
        single = "" in self.models.label_keys
        return {
            (model, "" if single else output): limits
            for model, outputs in found.items()
            for output, limits in outputs.items()
        }


def _transforms(artifacts: Mapping[str, types.Artifact]) -> dict[str, str]:
    if INTEGER not in artifacts or LAST_BLESSED not in artifacts:
        return {}
    path = own_transform(artifacts[INTEGER], artifacts[LAST_BLESSED])
    return {LAST_BLESSED: path} if path else {}
