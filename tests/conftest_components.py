"""Real artifacts of the standard components, made once from the digits."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tfx import types
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types import channel_utils, standard_artifacts

from components.quantization.qat.parameters import TrainingParameters
from components.quantize_trainer import Executor as TrainerExecutor
from components.quantize_trainer import QuantizeTrainer
from pipelines.configs import load_config
from pipelines.inputs import prepare_examples
from pipelines.metadata import MetadataStore
from pipelines.pipeline import data_components
from pipelines.runners import load_runner

Artifacts = dict[str, list[types.Artifact]]


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Outputs of ImportExampleGen to Transform, by key."""
    config = dataclasses.replace(load_config("digits"), root=str(tmp_path_factory.mktemp("standard")))
    prepare_examples(config)
    load_runner("local").run(
        Pipeline(
            pipeline_name=config.name,
            pipeline_root=config.pipeline_root,
            components=data_components(config),
            metadata_connection_config=metadata.sqlite_metadata_connection_config(config.metadata_url),
            beam_pipeline_args=list(config.beam_pipeline_args),
        )
    )
    made: Artifacts = {}
    for execution in MetadataStore(config.metadata_url).last_run(config.name):
        for key, records in execution.outputs.items():
            for record in records:
                artifact = getattr(standard_artifacts, record.type)()
                artifact.uri = record.uri
                if "split_names" in record.properties:
                    artifact.split_names = record.properties["split_names"]
                made.setdefault(key, []).append(artifact)
    return made


@pytest.fixture(scope="session")
def channel(standard: Artifacts) -> Callable[[str], types.BaseChannel]:
    """Gives a channel of standard artifacts, by key."""
    return lambda key: channel_utils.as_channel(standard[key])


@pytest.fixture(scope="session")
def trainer(channel: Callable[[str], types.BaseChannel]) -> Callable[..., QuantizeTrainer]:
    """Gives a QuantizeTrainer of the digits with a short training, with some arguments changed."""

    def make(**changes: Any) -> QuantizeTrainer:
        arguments = {
            "examples": channel("transformed_examples"),
            "transform_graph": channel("transform_graph"),
            "schema": channel("schema"),
            "module": "pipelines.tasks.digits",
            "label_key": "label",
            "training": TrainingParameters(float_epochs=4, qat_epochs=1, float_learning_rate=3e-3),
        }
        return QuantizeTrainer(**{**arguments, **changes})

    return make


def new_models(directory: Path, *keys: str, kind: type = standard_artifacts.Model) -> Artifacts:
    """Empty output artifacts under a directory."""
    outputs: Artifacts = {}
    for number, key in enumerate(keys):
        artifact = kind()
        artifact.uri = str(directory / key)
        artifact.id = number + 1
        outputs[key] = [artifact]
    return outputs


def train(
    component: QuantizeTrainer, standard: Artifacts, directory: Path, **inputs: list[types.Artifact]
) -> Artifacts:
    """Runs the executor of a QuantizeTrainer."""
    outputs = new_models(directory, "model", "float_model")
    outputs |= new_models(directory, "model_run", kind=standard_artifacts.ModelRun)
    given = {
        "examples": standard["transformed_examples"],
        "transform_graph": standard["transform_graph"],
        "schema": standard["schema"],
        **inputs,
    }
    TrainerExecutor().Do(given, outputs, component.exec_properties)
    return outputs


@pytest.fixture(scope="session")
def trained(
    trainer: Callable[..., QuantizeTrainer], standard: Artifacts, tmp_path_factory: pytest.TempPathFactory
) -> Artifacts:
    """Both models of a short training."""
    return train(trainer(), standard, tmp_path_factory.mktemp("trained"))
