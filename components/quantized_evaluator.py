"""QuantizedEvaluator: an integer model against its float parent -> ModelEvaluation and ModelBlessing."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis import constants
from tfx import types
from tfx.components.evaluator import constants as blessing_constants
from tfx.components.evaluator import executor as evaluator_executor
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, proto_utils

from components import model_artifact
from components.eval_config import eval_config
from components.evaluation.gates import Gates, today
from components.evaluation.judgement import judge
from components.evaluation.measurements import FLOAT, INTEGER, Cell, Measurements
from components.evaluation.verdict import Verdict
from components.paired_predictions import paired_predictions_extractor
from components.quantization import toolchain
from components.quantization.agreement import EXAMPLE_COUNT
from components.quantization.conversion import flatbuffer

VERDICT_FILE = "verdict.json"
_LOGGER = logging.getLogger(__name__)


class Executor(evaluator_executor.Executor):
    """Evaluates both models in one Beam pipeline.

    An Evaluator of TFX's, so that on Kubeflow and Vertex its blessing gets the names of the models, by which
    LatestBlessedModelStrategy finds them there, instead of numbers.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Runs TFMA, then turns its validation into a blessing with reasons."""
        models = {
            INTEGER: artifact_utils.get_single_instance(input_dict["model"]),
            FLOAT: artifact_utils.get_single_instance(input_dict["baseline_model"]),
        }
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        _check_compiled_from(input_dict.get("compiled_model"), models[INTEGER])
        config = proto_utils.json_to_proto(exec_properties["eval_config"], tfma.EvalConfig())
        gates = Gates.from_json(exec_properties["gates"])
        with model_artifact.staged_output(evaluation) as directory:
            with self._make_beam_pipeline() as pipeline:
                _evaluate(pipeline, input_dict, exec_properties["split"], config, models, str(directory))
            measured = _measurements(str(directory), models)
            if not measured.examples.get(()):
                raise ValueError(
                    f"split {exec_properties['split']!r} has no examples to evaluate; check the input of the ExampleGen"
                )
            verdict = judge(gates, measured, today())
        for name in models:
            for metric, value in measured.metrics[Cell(model=name)].items():
                evaluation.set_float_custom_property(f"{name}_{metric}", value)
        _bless(blessing, verdict, gates, models)


def _check_compiled_from(compiled: list[types.Artifact] | None, model: types.Artifact) -> None:
    """What is pushed must be made from what is evaluated."""
    for artifact in compiled or []:
        parent = artifact.get_string_custom_property("parent_sha256")
        evaluated = model.get_string_custom_property("sha256")
        if parent != evaluated:
            raise ValueError(
                f"compiled_model was made from the model {parent[:12]}, but {evaluated[:12]} is evaluated; connect the"
                " model that the compiler was given"
            )


def _evaluate(
    pipeline: beam.Pipeline,
    input_dict: Mapping[str, list[types.Artifact]],
    split: str,
    config: tfma.EvalConfig,
    models: Mapping[str, types.Artifact],
    output_path: str,
) -> None:
    examples = input_dict["examples"]
    factory = tfxio_utils.get_tfxio_factory_from_artifact(
        examples=examples, telemetry_descriptors=["QuantizedEvaluator"], raw_record_column_name=tfma.ARROW_INPUT_COLUMN
    )
    batches = [
        pipeline | f"Read[{index}]" >> factory(io_utils.all_files_pattern(uri)).BeamSource()
        for index, uri in enumerate(artifact_utils.get_split_uris(examples, split))
    ]
    tflite = model_artifact.read_tflite(models[INTEGER])
    outputs = len(flatbuffer.read_subgraphs(tflite)[0].outputs)
    if outputs != 1:
        raise ValueError(
            f"the integer model has {outputs} outputs, expected one; evaluate a model with a single output"
        )
    paths = {name: model_artifact.serving_path(artifact) for name, artifact in models.items()}
    extractors = [
        tfma.extractors.FeaturesExtractor(config),
        paired_predictions_extractor(paths[FLOAT], tflite, _kept(config)),
        tfma.extractors.LabelsExtractor(config),
        tfma.extractors.ExampleWeightsExtractor(config),
        tfma.extractors.UnbatchExtractor(),
        tfma.extractors.SliceKeyExtractor(eval_config=config),
    ]
    # Never loaded by TFMA, whose predictions are not used; it wants two models where there is a baseline.
    shared = [
        tfma.EvalSharedModel(model_name=name, model_path=path, model_type=constants.TF_GENERIC)
        for name, path in paths.items()
    ]
    _ = (
        batches
        | beam.Flatten()
        | tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=shared, eval_config=config, extractors=extractors, output_path=output_path
        )
    )


def _kept(config: tfma.EvalConfig) -> frozenset[str]:
    """The features that labels, weights and slices need."""
    keys = {key for spec in config.model_specs for key in (spec.label_key, spec.example_weight_key)}
    for slicing in config.slicing_specs:
        keys |= {*slicing.feature_keys, *slicing.feature_values}
    return frozenset(keys - {""})


def _measurements(output_path: str, models: Mapping[str, types.Artifact]) -> Measurements:
    """Single numbers of both models on all examples and every slice, and the size of the file."""
    metrics: dict[Cell, dict[str, float]] = {Cell(model=name): {} for name in models}
    for name in models:
        for slice_key, outputs in tfma.load_eval_result(output_path, model_name=name).slicing_metrics:
            cut = tuple((feature, str(value)) for feature, value in slice_key)
            metrics[Cell(model=name, slice=cut)] = {
                metric: float(value["doubleValue"])
                for metric, value in outputs[""][""].items()
                if "doubleValue" in value
            }
    examples = {
        cell.slice: int(values[EXAMPLE_COUNT])
        for cell, values in metrics.items()
        if cell.model == INTEGER and EXAMPLE_COUNT in values
    }
    size = len(model_artifact.read_tflite(models[INTEGER]))
    return Measurements(metrics=metrics, examples=examples, facts={"model_bytes": float(size)})


def _bless(blessing: types.Artifact, verdict: Verdict, gates: Gates, models: Mapping[str, types.Artifact]) -> None:
    """Writes the blessing as the stock Evaluator does, with reasons."""
    with model_artifact.staged_output(blessing) as directory:
        name = blessing_constants.BLESSED_FILE_NAME if verdict.blessed else blessing_constants.NOT_BLESSED_FILE_NAME
        (directory / name).touch()
        (directory / VERDICT_FILE).write_text(verdict.to_json())
    value = blessing_constants.BLESSED_VALUE if verdict.blessed else blessing_constants.NOT_BLESSED_VALUE
    blessing.set_int_custom_property(blessing_constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
    blessing.set_string_custom_property("reasons", json.dumps(verdict.texts))
    blessing.set_string_custom_property("reason_codes", ", ".join(verdict.codes))
    blessing.set_string_custom_property("overrides", gates.overrides_json())
    for reason in verdict.reasons:
        if not reason.gate:
            _LOGGER.warning("%s", reason.text)
    for key, model in (("current_model", models[INTEGER]), ("baseline_model", models[FLOAT])):
        blessing.set_string_custom_property(key, model.uri)
        blessing.set_int_custom_property(f"{key}_id", model.id)


class QuantizedEvaluatorSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of QuantizedEvaluator."""

    PARAMETERS = {
        "eval_config": component_spec.ExecutionParameter(type=str),
        "gates": component_spec.ExecutionParameter(type=str),
        "split": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "compiled_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class QuantizedEvaluator(base_beam_component.BaseBeamComponent):
    """Evaluates an integer TFLite model and its float parent on the same examples, and blesses by gates.

    Outputs: `evaluation`, which `tfma.load_eval_result` reads for model_name "integer" and "float"; `blessing`, which
    the stock Pusher honours: always blessed or not, with reasons, in verdict.json as
    components/evaluation/verdict.py has them.
    """

    SPEC_CLASS = QuantizedEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        label_key: str,
        metrics: Mapping[str, str],
        gates: Gates,
        slices: Sequence[Sequence[str]] = (),
        compiled_model: types.BaseChannel | None = None,
        split: str = "eval",
    ) -> None:
        """Declares the component.

        Args:
          examples: Raw examples; the float model's own transform feeds both models.
          model: The integer model, as TFLiteIntConverter made it.
          baseline_model: Its float parent, as QuantizeTrainer exported it.
          label_key: The transformed feature that is the label.
          metrics: Class names of TFMA or Keras metrics by the names that gates use.
          gates: What the model must keep. Without a bound it is not blessed, unless they say so.
          slices: Features, or groups of features, by which the metrics are sliced.
          compiled_model: What will be pushed; must have been made from `model`.
          split: The split to evaluate on.

        Raises:
          ValueError: If a gate is on something that is not measured, or an override has expired.
        """
        config = eval_config(label_key, metrics, gates, slices)
        super().__init__(
            QuantizedEvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                compiled_model=compiled_model,
                eval_config=proto_utils.proto_to_json(config),
                gates=gates.to_json(),
                split=split,
                toolchain=toolchain.versions_json(),
                evaluation=channel_utils.as_channel([standard_artifacts.ModelEvaluation()]),
                blessing=channel_utils.as_channel([standard_artifacts.ModelBlessing()]),
            )
        )
