"""QuantizedEvaluator: an integer model against its float parent -> ModelEvaluation and ModelBlessing."""

import dataclasses
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import constants as blessing_constants
from tfx.components.evaluator import executor as evaluator_executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, proto_utils

from components import model_artifact
from components.beam_options import ParsedOptions
from components.blessing import publish_verdict
from components.compiled_file import check_compiled_from, compiled_facts
from components.eval_config import eval_config
from components.evaluation.baseline import Origin, foreign, incompatibilities
from components.evaluation.drift import of_drift
from components.evaluation.gates import Gates, today
from components.evaluation.judgement import judge
from components.evaluation.measurements import (
    FAKE_QUANT,
    FLOAT,
    INTEGER,
    LAST_BLESSED,
    MEASUREMENTS_FILE,
    Measurements,
)
from components.evaluation.task import Task
from components.evaluation.task_metric import TaskMetric
from components.evaluation.verdict import Verdict
from components.evaluation_pass import EvaluationPass, own_transform
from components.evaluation_results import read_measurements
from components.last_blessed import ORIGIN_KEY
from components.model_probes import CANDIDATE, probed, write_refused
from components.model_report import report_files
from components.quantization import toolchain
from components.quantization.storable_text import with_backslashes, without_backslashes
from components.span_drift import read_drift
from components.target_gates.candidate_facts import candidate_facts
from components.targets import Options, load_target, options_json

MODEL_KEYS = {
    INTEGER: "model",
    FLOAT: "baseline_model",
    FAKE_QUANT: "fake_quant_model",
    LAST_BLESSED: "last_blessed_model",
}
# What the report is made of besides the evaluation, by the names that it has for them.
_REPORTED = {
    "examples": "examples",
    "float_model": "baseline_model",
    "tflite_model": "model",
    "compiled_model": "compiled_model",
    "infra_blessing": "infra_blessing",
    "model_run": "model_run",
    "drift": "drift",
}
_BLESSING_FILES = (blessing_constants.BLESSED_FILE_NAME, blessing_constants.NOT_BLESSED_FILE_NAME)
_PAIRED_PROPERTIES = ("agreement", "better", "worse", "difference", "low", "high", "mcnemar_p")
_LOGGER = logging.getLogger(__name__)


class Executor(evaluator_executor.Executor):
    """Evaluates both models in one Beam pipeline.

    An Evaluator of TFX's, so that on Kubeflow and Vertex its blessing gets the names of the models, by which
    LatestBlessedModelStrategy finds them there, instead of numbers.
    """

    def _make_beam_pipeline(self) -> beam.Pipeline:
        if self._make_beam_pipeline_fn is not None:
            return self._make_beam_pipeline_fn()
        return beam.Pipeline(options=ParsedOptions(self._beam_pipeline_args))

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Runs TFMA, then turns its validation into a blessing with reasons."""
        models = {
            name: artifact_utils.get_single_instance(input_dict[key])
            for name, key in MODEL_KEYS.items()
            if input_dict.get(key)
        }
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        check_compiled_from(input_dict.get("compiled_model"), models[INTEGER])
        described = with_backslashes(exec_properties["eval_config"])
        config = proto_utils.json_to_proto(described, config_pb2.EvalConfig())
        gates = Gates.from_json(exec_properties["gates"])
        found = probed(models)
        if found.refusals:
            with model_artifact.partial_output(evaluation) as uri:
                write_refused(config, uri)
            verdict = Verdict(reasons=found.refusals)
            report = _report(verdict, exec_properties, input_dict, output_dict)
            _bless(blessing, verdict, gates, models, input_dict.get("compiled_model"), report)
            return
        other_origin, incompatible = _differences(models)
        left_out = {LAST_BLESSED} if other_origin or incompatible or found.unusable else set()
        for why in found.unusable:
            _LOGGER.warning("the last blessed model is left out, as it cannot be run: %s", why)
        evaluation_pass = EvaluationPass.of(
            config,
            {name: model for name, model in models.items() if name not in left_out},
            exec_properties["flipped_examples"],
        )
        with model_artifact.local_serving(models[INTEGER]) as serving:
            compiled = input_dict.get("compiled_model")
            one = artifact_utils.get_single_instance(compiled) if compiled else None
            report = model_artifact.read_compile_report(one) if one is not None else None
            target, options = exec_properties["target"], exec_properties["compiler_options"]
            runs = exec_properties["latency_runs"]
            facts = candidate_facts(serving, target, gates.metrics, report, options, runs)
        facts |= compiled_facts(input_dict.get("compiled_model"))
        if input_dict.get("drift"):
            facts |= read_drift(artifact_utils.get_single_instance(input_dict["drift"])).facts()
        with model_artifact.partial_output(evaluation) as uri:
            with self._make_beam_pipeline() as pipeline:
                batches = evaluation_pass.read(pipeline, input_dict["examples"], exec_properties["split"])
                evaluation_pass.write(batches, gates.confidence, uri)
            measured = read_measurements(uri, evaluation_pass.models.names, facts)
            if not measured.examples.get(()):
                raise ValueError(
                    f"split {exec_properties['split']!r} has no examples to evaluate; check the input of the ExampleGen"
                )
            measured = dataclasses.replace(
                measured, foreign=other_origin, incompatible=incompatible, unusable=found.unusable
            )
            io_utils.write_string_file(os.path.join(uri, MEASUREMENTS_FILE), measured.to_json())
            verdict = judge(gates, measured, today())
        for name, value in facts.items():
            if isinstance(value, str):
                evaluation.set_string_custom_property(name, value)
        for name, value in _properties(measured).items():
            evaluation.set_float_custom_property(name, value)
        page = _report(verdict, exec_properties, input_dict, output_dict)
        _bless(blessing, verdict, gates, models, input_dict.get("compiled_model"), page)


def _origin(model: types.Artifact) -> Origin:
    """What TFLiteIntConverter recorded of an integer model."""
    facts = (model.get_string_custom_property(name) for name in ("pipeline", "task", "profile"))
    return Origin(**dict(zip(("pipeline", "task", "target"), facts, strict=True)))


def _differences(models: Mapping[str, types.Artifact]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How the last blessed model differs from the integer one in its origin, and in inputs, outputs and labels."""
    if LAST_BLESSED not in models:
        return (), ()
    ours, other = models[INTEGER], models[LAST_BLESSED]
    contracts = [model_artifact.read_contract(model) for model in (ours, other)]
    incompatible = incompatibilities(*contracts)
    transform = own_transform(ours, other)
    if transform and not fileio.isdir(transform):
        incompatible += (f"it was made with another transform, and {transform}, which has that, is not there",)
    return foreign(_origin(ours), _origin(other)), incompatible


def _properties(measured: Measurements) -> dict[str, float]:
    """The figures over all examples, for ML Metadata, which takes no NaN."""
    found = {
        "_".join(filter(None, (cell.model, cell.output, name))): value
        for cell, values in measured.metrics.items()
        if not cell.slice
        for name, value in values.items()
    }
    for (model, output, cut), paired in measured.paired.items():
        if not cut:
            where = "_".join(filter(None, (output, "vs", model)))
            found |= {f"{where}_{name}": float(getattr(paired, name)) for name in _PAIRED_PROPERTIES}
    found |= {name: value for name, value in measured.facts.items() if isinstance(value, float)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _report(
    verdict: Verdict,
    exec_properties: dict[str, Any],
    input_dict: dict[str, list[types.Artifact]],
    output_dict: dict[str, list[types.Artifact]],
) -> dict[str, str]:
    """The files of the report, of all that is known by now: the evaluation is published."""
    artifacts = {name: input_dict[key][0] for name, key in _REPORTED.items() if input_dict.get(key)}
    artifacts["evaluation"] = artifact_utils.get_single_instance(output_dict["evaluation"])
    return report_files(artifacts, exec_properties["target"], verdict.to_json())


def _bless(
    blessing: types.Artifact,
    verdict: Verdict,
    gates: Gates,
    models: Mapping[str, types.Artifact],
    compiled: list[types.Artifact] | None,
    report: Mapping[str, str],
) -> None:
    """Writes the blessing as the stock Evaluator does, with reasons and the report."""
    judged = {"model": models[INTEGER]}
    if compiled:
        judged["compiled_model"] = artifact_utils.get_single_instance(compiled)
    publish_verdict(blessing, verdict, _BLESSING_FILES, judged, report)
    blessing.set_string_custom_property("overrides", gates.overrides_json())
    blessing.set_string_custom_property(ORIGIN_KEY, str(_origin(models[INTEGER])))
    for reason in verdict.reasons:
        if not reason.gate or reason.gate == CANDIDATE:
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
        "flipped_examples": component_spec.ExecutionParameter(type=int),
        "latency_runs": component_spec.ExecutionParameter(type=int),
        "target": component_spec.ExecutionParameter(type=str),
        "compiler_options": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "fake_quant_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "last_blessed_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "compiled_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "infra_blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun, optional=True),
        "drift": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies, optional=True),
    }
    OUTPUTS = {
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class QuantizedEvaluator(base_beam_component.BaseBeamComponent):
    """Evaluates an integer TFLite model and its float parent on the same examples, and blesses by gates.

    Outputs: `evaluation`, which `tfma.load_eval_result` reads for model_name "integer" and "float"; `blessing`, which
    the stock Pusher honours: always blessed or not, with reasons, in verdict.json as
    components/evaluation/verdict.py has them, and with a page on all that is known of the model, report.html.
    """

    SPEC_CLASS = QuantizedEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        label_key: str | Mapping[str, str],
        metrics: Mapping[str, str | TaskMetric],
        gates: Gates,
        slices: Sequence[Sequence[str]] = (),
        label_kind: str | Mapping[str, str] = "",
        weight_key: str = "",
        fake_quant_model: types.BaseChannel | None = None,
        last_blessed_model: types.BaseChannel | None = None,
        compiled_model: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
        model_run: types.BaseChannel | None = None,
        drift: types.BaseChannel | None = None,
        target: str = "edge_tpu",
        compiler_options: Options | None = None,
        split: str = "eval",
        flipped_examples: int = 12,
        latency_runs: int = 0,
    ) -> None:
        """Declares the component.

        Args:
          examples: Raw examples; the float model's own transform feeds both models.
          model: The integer model, as TFLiteIntConverter made it.
          baseline_model: Its float parent, as QuantizeTrainer exported it.
          label_key: The transformed feature that is the label; of a model with several outputs, by output.
          metrics: Class names of TFMA or Keras metrics, or `TaskMetric`s with options, by the names that gates use; as
            "output/name" of one output.
          gates: What the model must keep. Without a bound it is not blessed, unless they say so.
          slices: Features, or groups of features, by which the metrics are sliced.
          label_kind: What the labels are, of all outputs or by output: "classes" for one class each, as an index or
            one-hot, "labels" for several, each there or not, "values" to come near to; "" to tell from types and
            shapes, and to refuse where they may mislead.
          weight_key: The transformed feature that is the weight of an example; "" for equal weights.
          fake_quant_model: The model with fake quantization that the integer model was made from, to be compared too.
          last_blessed_model: The integer model that was blessed last, to be compared too; may have no artifact yet. One
            of another pipeline, task or target is not compared, and refused by each gate against it.
          compiled_model: What will be pushed; must have been made from `model`. Gates on the target are held against
            the report beside it.
          infra_blessing: What EdgeInfraValidator found, for the page alone.
          model_run: QuantizeTrainer's, for the page alone: the curves of the training and the rungs of its ladder.
          drift: What SpanDrift measured, for gates on drift and the page.
          target: Name of the target, whose rules say what it takes where there is no such report.
          compiler_options: Options of the target's compiler, by which these rules go; None for its defaults.
          split: The split to evaluate on.
          flipped_examples: How many of the examples that get another class by the integer model are shown on the page,
            of each output, those first of which the float model was surest; 0 for none, as where examples are private.
          latency_runs: Of how many inferences of the integer model on this machine the median time is told; 0 for none
            unless a gate asks, which takes 50.

        Raises:
          ValueError: If a gate is on something that is not measured, an override has expired, there is no such target
            or metric, the options are none of the target's, nothing can be made of a metric with its options, or gates
            want a compiled model or drift and none is connected.
        """
        written = load_target(target).require_options(options_json(compiler_options))
        if gates.require_compiled and compiled_model is None:
            raise ValueError("gates with require_compiled, but no compiled_model; connect TargetCompiler's output")
        if of_drift(gates) and drift is None:
            raise ValueError("gates on drift, but no drift; connect SpanDrift's output")
        further = {FAKE_QUANT: fake_quant_model, LAST_BLESSED: last_blessed_model}
        task = Task(
            label_key=label_key,
            metrics=metrics,
            slices=slices,
            label_kind=label_kind,
            weight_key=weight_key,
            models=(INTEGER, FLOAT, *(name for name, channel in further.items() if channel is not None)),
        )
        super().__init__(
            QuantizedEvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                fake_quant_model=fake_quant_model,
                last_blessed_model=last_blessed_model,
                compiled_model=compiled_model,
                infra_blessing=infra_blessing,
                model_run=model_run,
                drift=drift,
                eval_config=without_backslashes(proto_utils.proto_to_json(eval_config(task, gates))),
                gates=gates.to_json(),
                split=split,
                flipped_examples=flipped_examples,
                latency_runs=latency_runs,
                target=target,
                compiler_options=written,
                toolchain=toolchain.versions_json(),
                evaluation=channel_utils.as_channel([standard_artifacts.ModelEvaluation()]),
                blessing=channel_utils.as_channel([standard_artifacts.ModelBlessing()]),
            )
        )
