"""The Resolver of the last blessed model of the same pipeline, task and target."""

from typing import Any

from tfx import types
from tfx.dsl.components.common import resolver
from tfx.dsl.input_resolution.strategies import latest_blessed_model_strategy
from tfx.types import standard_artifacts

from components.evaluation.baseline import Origin
from components.last_blessed import ORIGIN_KEY, LastBlessedModelStrategy
from pipelines import tasks
from pipelines.config import PipelineConfig


def origin_of(config: PipelineConfig) -> Origin:
    """Returns the origin of the models of a config's pipeline."""
    return Origin(pipeline=config.name, task=tasks.task_path(config.task), target=config.target)


def last_blessed(config: PipelineConfig, on_service: bool, validated: bool = True) -> resolver.Resolver:
    """Returns the Resolver, with outputs "model" and "model_blessing".

    Args:
      config: The config.
      on_service: Whether it is compiled for a service. For these TFX compiles no strategies but its own, and what its
        strategy looks for is narrowed by `narrow_queries`; it does not look at infra blessings.
      validated: Whether the pipeline has an EdgeInfraValidator, which must have blessed the model too.
    """
    channels = {
        "model": types.Channel(type=standard_artifacts.Model),
        "model_blessing": types.Channel(type=standard_artifacts.ModelBlessing),
    }
    if on_service:
        strategy: dict[str, Any] = {"strategy_class": latest_blessed_model_strategy.LatestBlessedModelStrategy}
    else:
        strategy = {"strategy_class": LastBlessedModelStrategy, "config": {"origin": str(origin_of(config))}}
        if validated:
            channels["infra_blessing"] = types.Channel(type=standard_artifacts.InfraBlessing)
    return resolver.Resolver(**strategy, **channels).with_id("last_blessed")


def narrow_queries(job: dict[str, Any], config: PipelineConfig) -> None:
    """Lets the Resolver of a compiled job see the blessings of the config's origin alone.

    TFX writes the query https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.metadataStores.artifacts/list
    without anything that says whose blessing it is; Vertex has one store for all pipelines of a project.
    """
    for executor in job["pipelineSpec"]["deploymentSpec"]["executors"].values():
        for query in executor.get("resolver", {}).get("outputArtifactQueries", {}).values():
            if 'schema_title="tfx.ModelBlessing"' in query["filter"]:
                query["filter"] += f' AND metadata.{ORIGIN_KEY}.string_value="{origin_of(config)}"'
