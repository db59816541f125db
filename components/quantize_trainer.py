"""QuantizeTrainer: transformed examples -> a float model and its quantization-aware-trained copy."""

import contextlib
import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components import example_files, model_artifact, trained_models, trainer_inputs
from components.calibration_origin import with_origin
from components.evaluation.gates import Gates
from components.quantization import plugins, toolchain
from components.quantization.calibration_set import CalibrationSet
from components.quantization.conversion import io_dtypes
from components.quantization.conversion.profiles import load_profile
from components.quantization.qat.checkpoints import remove_checkpoints
from components.quantization.qat.distribution import is_chief, make_strategy, wait_for_all
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.training import QuantizationAwareTraining, TrainedModels
from components.quantization.schemes import QuantizationScheme, load_scheme
from components.target_gates import planned_target
from components.target_gates.planned_target import PlannedTarget
from components.targets import Options, options_json
from components.training_origin import training_origin

USER_FUNCTIONS = ("build_model", "input_fn")


class Executor(base_executor.BaseExecutor):
    """Trains both models in this process and publishes them together."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Stages the splits, trains, exports; writes no output if anything fails."""
        user = plugins.load_user_module(exec_properties["module"], USER_FUNCTIONS)
        scheme = QuantizationScheme.from_json(exec_properties["scheme"])
        targets = planned_target.from_json(exec_properties["targets"])
        hyperparameters = trainer_inputs.read_hyperparameters(input_dict.get("hyperparameters"))
        parameters = trainer_inputs.training_parameters(exec_properties["training"], hyperparameters)
        # Workers that train together must find each other before anything else runs in TensorFlow.
        strategy = make_strategy(parameters.distribution, parameters.batch_size)
        transform = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
        serving_features = trainer_inputs.serving_features(
            input_dict, transform, json.loads(exec_properties["training_only"])
        )
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tfx-qat-")))
            splits = [
                example_files.stage_split(input_dict["examples"], split, parameters.seed, scratch)
                for split in (exec_properties["train_split"], exec_properties["eval_split"])
            ]
            spec, batch = transform.transformed_feature_spec(), parameters.batch_size
            datasets = [functools.partial(user.input_fn, [str(split)], spec, batch) for split in splits]
            outputs = {key: artifact_utils.get_single_instance(artifacts) for key, artifacts in output_dict.items()}
            checkpoints = trainer_inputs.checkpoint_dir(outputs["model"], exec_properties)
            logs = scratch / "logs"
            logs.mkdir()
            trained = QuantizationAwareTraining(*datasets, parameters, logs).run(
                functools.partial(user.build_model, hyperparameters),
                scheme,
                trainer_inputs.load_float(input_dict, "base_model"),
                warm_start_model=trainer_inputs.load_float(input_dict, "warm_start_model"),
                ladder=trainer_inputs.ladder_options(targets),
                checkpoint_dir=checkpoints,
                strategy=strategy,
                conversions=[planned_target.conversion_of(one) for one in targets],
            )
            if not is_chief(strategy):
                wait_for_all(strategy)  # the chief has to publish
                return
            # Published when this block ends well: what fails before leaves nothing.
            staged = {key: stack.enter_context(model_artifact.staged_output(out)) for key, out in outputs.items()}
            shutil.copytree(logs, staged["model_run"], dirs_exist_ok=True)
            trained_models.write_reports(trained, staged["model_run"])
            trained_models.export_models(
                trained,
                parameters,
                training_origin(input_dict, exec_properties, *splits),
                transform,
                serving_features,
                staged,
                outputs,
                _calibrated(trained, input_dict, exec_properties),
            )
        if checkpoints is not None:
            _remove_all(checkpoints)
        wait_for_all(strategy)


def _calibrated(
    trained: TrainedModels, input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]
) -> CalibrationSet | None:
    """Which examples the quantized model's ranges are from, and of which artifacts; None if they were trained."""
    found = trained.calibration_set
    if found is None:
        return None
    raw = input_dict.get("raw_examples") or ()
    return with_origin(found, "QuantizeTrainer", exec_properties["train_split"], input_dict["examples"], raw)


def _remove_all(checkpoints: Path) -> None:
    """Removes checkpoints, and the directory that trainings share if no other is going on."""
    remove_checkpoints(checkpoints)
    with contextlib.suppress(OSError):
        checkpoints.parent.rmdir()


def _in_training(planned: PlannedTarget, scheme: QuantizationScheme, training: TrainingParameters) -> PlannedTarget:
    """A target with the gates that a training holds, and no others: those of the evaluator are not its business."""
    load_profile(planned.target).check(scheme)
    io_dtypes.require(planned.io_dtype, scheme)
    held = planned.gates.before_training()
    if training.strategy == "auto":
        held = dataclasses.replace(held, bounds=(*held.bounds, *planned.gates.before_evaluation().bounds))
    return dataclasses.replace(planned, gates=held)


class QuantizeTrainerSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of QuantizeTrainer."""

    PARAMETERS = {
        "module": component_spec.ExecutionParameter(type=str),
        "module_sha256": component_spec.ExecutionParameter(type=str),
        "scheme": component_spec.ExecutionParameter(type=str),
        "training": component_spec.ExecutionParameter(type=str),
        "targets": component_spec.ExecutionParameter(type=str),
        "training_only": component_spec.ExecutionParameter(type=str),
        "train_split": component_spec.ExecutionParameter(type=str),
        "eval_split": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "base_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "warm_start_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "hyperparameters": component_spec.ChannelParameter(type=standard_artifacts.HyperParameters, optional=True),
        "raw_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "float_model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
    }


class QuantizeTrainer(base_component.BaseComponent):
    """Trains a float model, then fine-tunes a copy of it with fake quantization.

    Outputs: `model`, the quantized SavedModel, by fine-tuning unless the training says otherwise; `float_model`, its
    parent; `model_run`, TensorBoard logs of all loops, the plan, and receipts of the rungs of strategy "auto". The
    SavedModels' signatures: see components/quantization/qat/export.py.
    """

    SPEC_CLASS = QuantizeTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        schema: types.BaseChannel,
        module: str,
        label_key: str | Mapping[str, str],
        weight_key: str = "",
        scheme: str | QuantizationScheme = "full_int8",
        training: TrainingParameters | None = None,
        profile: str = "edge_tpu",
        io_dtype: io_dtypes.IoDtype = "",
        gates: Gates | None = None,
        compiler_options: Options | None = None,
        also_for: Sequence[PlannedTarget] = (),
        base_model: types.BaseChannel | None = None,
        warm_start_model: types.BaseChannel | None = None,
        hyperparameters: types.BaseChannel | None = None,
        raw_examples: types.BaseChannel | None = None,
        train_split: str = "train",
        eval_split: str = "eval",
    ) -> None:
        """Declares the component.

        Args:
          examples: Transformed examples, with the splits named below.
          transform_graph: The graph that made them; it becomes part of the exported models.
          schema: Schema of the raw examples.
          module: Dotted path of an installed module that defines `build_model(hyperparameters)` and `input_fn`, as
            described in pipelines/tasks/__init__.py.
          label_key: The raw feature that is the label, by output if there are several; it is not needed for serving.
          weight_key: The raw feature that is the weight of an example, which is not needed either; "" for none.
          scheme: A quantization scheme or its name.
          training: Epochs, rates and so on.
          profile: Name of the target; the scheme must be one that it can run. The conversion for it is tried before
            anything is trained.
          io_dtype: Type of the integer model's inputs and outputs, of all or by name; "" for the scheme's usual one.
          gates: Of these, those on "model_bytes" and on what is of the target, as "macs_on_target", are held against
            the model before anything is trained, and again after so many steps of fine-tuning as the training says.
            With strategy "auto" those on metrics that build_model compiles the model with, its loss, "agreement" and
            "example_count" must be kept on the eval split. All others are left to the evaluator.
          compiler_options: Options of the target's compiler, should gates be held by compiling; None for its defaults.
          also_for: Further targets of the same trained model, each with types and gates of its own.
          base_model: A trained float tf_keras SavedModel, which takes the place of float training.
          warm_start_model: An earlier model, integer, quantized or float, such as the last blessed one that a Resolver
            finds: float training begins with the weights of its float model, layer by layer where they fit.
          hyperparameters: A Tuner's best; those named as training parameters replace them, all reach build_model.
          raw_examples: Examples before Transform, which know the span that a calibration's examples are of; they are
            not read.
          train_split: Name of the split to train on.
          eval_split: Name of the split to evaluate on.

        Raises:
          ValueError: If the module, the scheme or a type is wrong, a target cannot run the scheme, or strategy "auto"
            has no gate that it could stop at.
        """
        plugins.load_user_module(module, USER_FUNCTIONS)
        scheme, training = load_scheme(scheme), training or TrainingParameters()
        first = PlannedTarget(
            target=profile,
            io_dtype=io_dtype,
            options=options_json(compiler_options),
            gates=gates or Gates(),
        )
        planned = [_in_training(one, scheme, training) for one in (first, *also_for)]
        if not scheme.trained:
            raise ValueError(f"scheme {scheme.name!r} is not trained; TFLiteIntConverter applies it to a float model")
        labels = [label_key] if isinstance(label_key, str) else label_key.values()
        if training.strategy == "auto" and not any(one.gates.before_evaluation().bounds for one in planned):
            raise ValueError(
                "strategy 'auto' stops at the first model that keeps the gates; give at least one on a metric over all"
                " examples, absolute or against the float model"
            )
        super().__init__(
            QuantizeTrainerSpec(
                examples=examples,
                transform_graph=transform_graph,
                schema=schema,
                base_model=base_model,
                warm_start_model=warm_start_model,
                hyperparameters=hyperparameters,
                raw_examples=raw_examples,
                module=module,
                module_sha256=toolchain.module_sha256(module),
                scheme=scheme.to_json(),
                training=training.to_json(),
                targets=planned_target.to_json(planned),
                training_only=json.dumps(sorted({*labels, weight_key} - {""})),
                train_split=train_split,
                eval_split=eval_split,
                toolchain=toolchain.versions_json(),
                model=channel_utils.as_channel([standard_artifacts.Model()]),
                float_model=channel_utils.as_channel([standard_artifacts.Model()]),
                model_run=channel_utils.as_channel([standard_artifacts.ModelRun()]),
            )
        )
