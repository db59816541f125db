"""QuantizeTrainer: transformed examples -> a float model and its quantization-aware-trained copy."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components import example_files, model_artifact
from components.quantization import plugins, toolchain
from components.quantization.qat import export
from components.quantization.qat.checkpoints import remove_checkpoints
from components.quantization.qat.distribution import is_chief, make_strategy
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.training import QuantizationAwareTraining, TrainedModels
from components.quantization.schemes import QuantizationScheme, load_scheme

USER_FUNCTIONS = ("build_model", "input_fn")
# A feature of the schema that is not in this environment is not there when the model serves.
_SERVING_ENVIRONMENT = "SERVING"


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
        hyperparameters = _read_hyperparameters(input_dict.get("hyperparameters"))
        parameters = _training_parameters(exec_properties["training"], hyperparameters)
        # Workers that train together must find each other before anything else runs in TensorFlow.
        strategy = make_strategy(parameters.distribution, parameters.batch_size)
        transform = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
        serving_features = _serving_features(input_dict, transform, exec_properties["label_key"])
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tfx-qat-")))
            datasets = [
                functools.partial(
                    user.input_fn,
                    [str(example_files.stage_split(input_dict["examples"], split, parameters.seed, scratch))],
                    transform.transformed_feature_spec(),
                    parameters.batch_size,
                )
                for split in (exec_properties["train_split"], exec_properties["eval_split"])
            ]
            outputs = {key: artifact_utils.get_single_instance(artifacts) for key, artifacts in output_dict.items()}
            checkpoints = _checkpoint_dir(outputs["model"], exec_properties)
            logs = scratch / "logs"
            logs.mkdir()
            trained = QuantizationAwareTraining(*datasets, parameters, logs).run(
                functools.partial(user.build_model, hyperparameters),
                scheme,
                _load_base(input_dict),
                checkpoint_dir=checkpoints,
                strategy=strategy,
            )
            if not is_chief(strategy):
                return
            # Published when this block ends well: what fails before leaves nothing.
            staged = {key: stack.enter_context(model_artifact.staged_output(out)) for key, out in outputs.items()}
            shutil.copytree(logs, staged["model_run"], dirs_exist_ok=True)
            settings: dict[str, model_artifact.Fact] = {
                "scheme": scheme.to_json(),
                "training": parameters.to_json(),
                **toolchain.version_facts(),
            }
            _export(trained, settings, transform, serving_features, staged, outputs)
        if checkpoints is not None:
            remove_checkpoints(checkpoints)
            with contextlib.suppress(OSError):
                checkpoints.parent.rmdir()  # unless another training is going on


def _checkpoint_dir(model: types.Artifact, exec_properties: dict[str, Any]) -> Path | None:
    """A directory that another attempt of this training finds again: beside its output, named after what it trains.

    A bucket must be mounted, as Vertex AI does under /gcs; without it an attempt starts anew.
    """
    uri = str(model.uri).rstrip("/")
    # Services give all attempts of a task one URI, TASK/model; local runners count executions, NODE/model/12.
    home = os.path.dirname(uri) if os.path.basename(uri) == "model" else os.path.dirname(os.path.dirname(uri))
    if home.startswith("gs://"):
        home = f"/gcs/{home.removeprefix('gs://')}"
        if not os.path.isdir(os.path.join("/gcs", home.split("/")[2])):
            return None
    if "://" in home:
        return None
    key = hashlib.sha256(json.dumps(exec_properties, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Path(home) / "checkpoints" / key


def _export(
    trained: TrainedModels,
    settings: dict[str, model_artifact.Fact],
    transform: tft.TFTransformOutput,
    serving_features: frozenset[str],
    staged: dict[str, Path],
    outputs: dict[str, types.Artifact],
) -> None:
    """Writes both models and their facts."""
    transform_layer = transform.transform_features_layer()
    parent = ""
    for key, kind, model, metrics in (
        ("float_model", "float", trained.float_model, trained.float_metrics),
        ("model", "qat", trained.qat_model, trained.qat_metrics),
    ):
        saved = staged[key] / model_artifact.SERVING_DIR
        export.export_saved_model(
            model,
            saved,
            transform=transform_layer,
            raw_feature_spec=transform.raw_feature_spec(),
            serving_features=serving_features,
            output_names=tuple(trained.float_model.output_names),
        )
        facts: dict[str, model_artifact.Fact] = {
            "kind": kind,
            "sha256": model_artifact.sha256(saved),
            "parent_sha256": parent,
            "size_bytes": sum(file.stat().st_size for file in (saved / "variables").glob("*.data*")),
            **{f"eval_{name}": value for name, value in metrics.items()},
            **settings,
        }
        model_artifact.record_facts(outputs[key], staged[key], facts)
        parent = str(facts["sha256"])


def _read_hyperparameters(artifacts: list[types.Artifact] | None) -> dict[str, Any]:
    """Reads what a Tuner wrote: the configuration of keras_tuner's HyperParameters."""
    if not artifacts:
        return {}
    uri = artifact_utils.get_single_uri(artifacts)
    config = json.loads(io_utils.read_string_file(io_utils.get_only_uri_in_dir(uri)))
    values: dict[str, Any] = config.get("values", config)
    return values


def _training_parameters(text: str, hyperparameters: dict[str, Any]) -> TrainingParameters:
    parameters = TrainingParameters(**json.loads(text))
    names = TrainingParameters.names()
    return parameters.updated({name: value for name, value in hyperparameters.items() if name in names})


def _load_base(input_dict: dict[str, list[types.Artifact]]) -> Any:
    if not input_dict.get("base_model"):
        return None
    with model_artifact.local_saved_model(artifact_utils.get_single_instance(input_dict["base_model"])) as path:
        return export.load_float_model(path)


def _serving_features(
    input_dict: dict[str, list[types.Artifact]], transform: tft.TFTransformOutput, label_key: str
) -> frozenset[str]:
    """All raw features but the label and those that the schema keeps out of serving."""
    raw = frozenset(transform.raw_feature_spec())
    if label_key not in raw:
        raise ValueError(f"label_key {label_key!r} is no raw feature; there are {', '.join(sorted(raw))}")
    schema = io_utils.SchemaReader().read(
        io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
    )
    absent = {feature.name for feature in schema.feature if _SERVING_ENVIRONMENT in feature.not_in_environment}
    return raw - absent - {label_key}


class QuantizeTrainerSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of QuantizeTrainer."""

    PARAMETERS = {
        "module": component_spec.ExecutionParameter(type=str),
        "module_sha256": component_spec.ExecutionParameter(type=str),
        "scheme": component_spec.ExecutionParameter(type=str),
        "training": component_spec.ExecutionParameter(type=str),
        "label_key": component_spec.ExecutionParameter(type=str),
        "train_split": component_spec.ExecutionParameter(type=str),
        "eval_split": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "base_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "hyperparameters": component_spec.ChannelParameter(type=standard_artifacts.HyperParameters, optional=True),
    }
    OUTPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "float_model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
    }


class QuantizeTrainer(base_component.BaseComponent):
    """Trains a float model, then fine-tunes a copy of it with fake quantization.

    Outputs: `model`, the quantization-aware-trained SavedModel; `float_model`, its parent; `model_run`, TensorBoard
    logs of both loops. The SavedModels' signatures: see components/quantization/qat/export.py.
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
        label_key: str,
        scheme: str | QuantizationScheme = "full_int8",
        training: TrainingParameters | None = None,
        base_model: types.BaseChannel | None = None,
        hyperparameters: types.BaseChannel | None = None,
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
          label_key: The raw feature that is the label; it is not needed for serving.
          scheme: A quantization scheme or its name.
          training: Epochs, rates and so on.
          base_model: A trained float tf_keras SavedModel, which takes the place of float training.
          hyperparameters: A Tuner's best; those named as training parameters replace them, all reach build_model.
          train_split: Name of the split to train on.
          eval_split: Name of the split to evaluate on.

        Raises:
          ValueError: If the module or the scheme is wrong.
        """
        plugins.load_user_module(module, USER_FUNCTIONS)
        super().__init__(
            QuantizeTrainerSpec(
                examples=examples,
                transform_graph=transform_graph,
                schema=schema,
                base_model=base_model,
                hyperparameters=hyperparameters,
                module=module,
                module_sha256=toolchain.module_sha256(module),
                scheme=load_scheme(scheme).to_json(),
                training=(training or TrainingParameters()).to_json(),
                label_key=label_key,
                train_split=train_split,
                eval_split=eval_split,
                toolchain=toolchain.versions_json(),
                model=channel_utils.as_channel([standard_artifacts.Model()]),
                float_model=channel_utils.as_channel([standard_artifacts.Model()]),
                model_run=channel_utils.as_channel([standard_artifacts.ModelRun()]),
            )
        )
