"""The Resolvers of the last blessed models of the same pipeline, task and target."""

from typing import Any

from tfx import types
from tfx.dsl.components.common import resolver
from tfx.dsl.input_resolution.strategies import latest_blessed_model_strategy
from tfx.types import standard_artifacts

from components.evaluation.baseline import Origin
from components.last_blessed import ORIGIN_KEY, LastBlessedModelStrategy
from pipelines import tasks
from pipelines.config import PipelineConfig
from pipelines.target_plan import ResolvedPlan

_ID = "last_blessed"


def origin_of(config: PipelineConfig, plan: ResolvedPlan) -> Origin:
    """Returns the origin of the models of a config's pipeline for one target."""
    return Origin(pipeline=config.name, task=tasks.task_path(config.task), target=plan.target)


def last_blessed(
    config: PipelineConfig, plan: ResolvedPlan, on_service: bool, validated: bool = True
) -> resolver.Resolver:
    """Returns the Resolver, with outputs "model" and "model_blessing".

    Args:
      config: The config.
      plan: The target.
      on_service: Whether it is compiled for a service. For these TFX compiles no strategies but its own, and what its
        strategy looks for is narrowed by `narrow_queries`; it looks neither at infra blessings nor at rollbacks.
      validated: Whether the pipeline has an EdgeInfraValidator, which must have blessed the model too.
    """
    channels = {
        "model": types.Channel(type=standard_artifacts.Model),
        "model_blessing": types.Channel(type=standard_artifacts.ModelBlessing),
    }
    if on_service:
        strategy: dict[str, Any] = {"strategy_class": latest_blessed_model_strategy.LatestBlessedModelStrategy}
    else:
        settings: dict[str, Any] = {"origin": str(origin_of(config, plan)), "push_uri": plan.push_uri}
        if config.spans and config.spans.is_repeated:
            settings["not_of_span"] = config.spans.selected[-1]
        strategy = {"strategy_class": LastBlessedModelStrategy, "config": settings}
        if validated:
            channels["infra_blessing"] = types.Channel(type=standard_artifacts.InfraBlessing)
    return resolver.Resolver(**strategy, **channels).with_id(f"{_ID}{plan.suffix}")


def narrow_queries(job: dict[str, Any], config: PipelineConfig) -> None:
    """Lets each Resolver of a compiled job see the blessings of the config's origin for its target alone.

    TFX writes the query https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.metadataStores.artifacts/list
    without anything that says whose blessing it is; Vertex has one store for all pipelines of a project.
    """
    # TFX makes two components of a Resolver, ID-model and ID-model_blessing or the like: one id may begin another.
    origins = {f"{_ID}{plan.suffix}": origin_of(config, plan) for plan in config.plans}
    for label, executor in job["pipelineSpec"]["deploymentSpec"]["executors"].items():
        for query in executor.get("resolver", {}).get("outputArtifactQueries", {}).values():
            if 'schema_title="tfx.ModelBlessing"' in query["filter"]:
                origin = origins[max((one for one in origins if label.startswith(one)), key=len)]
                query["filter"] += f' AND metadata.{ORIGIN_KEY}.string_value="{origin}"'
