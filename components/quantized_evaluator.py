"""QuantizedEvaluator: an integer model against its float parent -> ModelEvaluation and ModelBlessing."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import executor as evaluator_executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, proto_utils

from components import model_artifact
from components.baseline_model import Baseline
from components.beam_options import ParsedOptions, threads_of_worker
from components.compiled_file import check_compiled_from, compiled_facts
from components.eval_config import eval_config
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
from components.evaluation_files import set_validity
from components.evaluation_outputs import bless, set_figures
from components.evaluation_pass import EvaluationPass
from components.evaluation_results import read_measurements
from components.model_probes import probed, write_refused
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
        """Runs TFMA, then turns what was measured into a blessing with reasons."""
        given = {
            key: artifact_utils.get_single_instance(artifacts)
            for key, artifacts in input_dict.items()
            if artifacts and key != "examples"
        }
        models = {name: given[key] for name, key in MODEL_KEYS.items() if key in given}
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        check_compiled_from(given.get("compiled_model"), models[INTEGER])
        gates = Gates.from_json(exec_properties["gates"])
        described = with_backslashes(exec_properties["eval_config"])
        config = proto_utils.json_to_proto(described, config_pb2.EvalConfig())
        found = probed(models)
        if found.refusals:
            with model_artifact.partial_output(evaluation) as uri:
                write_refused(config, uri)
            verdict = Verdict(reasons=found.refusals)
        else:
            baseline, facts = Baseline.of(models, found.unusable), _facts(given, gates, exec_properties)
            with model_artifact.partial_output(evaluation) as uri:
                run = functools.partial(self._run, input_dict["examples"], exec_properties, gates.confidence, uri)
                passed = None
                try:
                    passed = run(config, baseline.compared(models))
                except Exception as error:
                    baseline = baseline.without(error)
                passed = passed or run(config, baseline.compared(models))
                measured = _measured(uri, passed, facts, baseline, exec_properties["split"])
                verdict = judge(gates, measured, today())
                set_validity(uri, verdict.blessed)
            set_figures(evaluation, measured)
        reported = {name: input_dict[key][0] for name, key in _REPORTED.items() if input_dict.get(key)}
        reported["evaluation"] = evaluation
        page = report_files(reported, exec_properties["target"], verdict.to_json())
        bless(blessing, verdict, gates, {**given, **models}, page)

    def _run(
        self,
        examples: list[types.Artifact],
        exec_properties: dict[str, Any],
        confidence: float,
        uri: str,
        config: config_pb2.EvalConfig,
        models: Mapping[str, types.Artifact],
    ) -> EvaluationPass:
        """Evaluates models in one pass, which it returns."""
        passed = EvaluationPass.of(config, models, exec_properties["flipped_examples"])
        with self._make_beam_pipeline() as pipeline:
            threads = threads_of_worker(self._beam_pipeline_args)
            passed.write(passed.read(pipeline, examples, exec_properties["split"]), confidence, uri, threads=threads)
        return passed


def _facts(
    given: Mapping[str, types.Artifact], gates: Gates, exec_properties: dict[str, Any]
) -> dict[str, float | str]:
    """What is known of the integer model as a file, of the compiled one, and of drift."""
    compiled = given.get("compiled_model")
    report = model_artifact.read_compile_report(compiled) if compiled is not None else None
    target, options = exec_properties["target"], exec_properties["compiler_options"]
    with model_artifact.local_serving(given[MODEL_KEYS[INTEGER]]) as serving:
        facts = candidate_facts(serving, target, gates.metrics, report, options, exec_properties["latency_runs"])
    facts |= compiled_facts(compiled)
    return facts | (read_drift(given["drift"]).facts() if "drift" in given else {})


def _measured(
    uri: str, passed: EvaluationPass, facts: Mapping[str, float | str], baseline: Baseline, split: str
) -> Measurements:
    """Reads what a pass wrote, and puts all that is judged beside it."""
    measured = dataclasses.replace(
        read_measurements(uri, passed.models.names, facts),
        foreign=baseline.foreign,
        incompatible=baseline.incompatible,
        unusable=baseline.unusable,
    )
    if not measured.examples.get(()):
        raise ValueError(f"split {split!r} has no examples to evaluate; check the input of the ExampleGen")
    io_utils.write_string_file(os.path.join(uri, MEASUREMENTS_FILE), measured.to_json())
    return measured


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
            want drift, or a compiled model, and none is connected, or the target has no compiler.
        """
        loaded = load_target(target)
        written = loaded.require_options(options_json(compiler_options))
        if gates.require_compiled and not loaded.compiles:
            raise ValueError(f"gates with require_compiled, but target {target!r} has no compiler: no model would pass")
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
