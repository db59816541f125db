"""How the components are connected."""

import dataclasses

import pytest
from tfx.dsl.compiler import compiler
from tfx.dsl.components.common.resolver import Resolver

from components.evaluation.gates import Gates
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.pipeline import create_pipeline, pipeline_components


@pytest.fixture
def config() -> PipelineConfig:
    return load_config("digits")


def test_last_blessed_model_is_looked_for_when_a_gate_or_a_warm_start_needs_it(config: PipelineConfig) -> None:
    gated = dataclasses.replace(config, gates=Gates.of("accuracy drop vs last_blessed <= 0.01"))
    warm = dataclasses.replace(config, warm_start=True)
    for one, resolvers, inputs in ((config, 0, (False, False)), (gated, 1, (False, True)), (warm, 1, (True, False))):
        components = {component.id: component for component in pipeline_components(one)}
        assert sum(isinstance(component, Resolver) for component in components.values()) == resolvers
        trainer, evaluator = components["QuantizeTrainer"], components["QuantizedEvaluator"]
        assert ("warm_start_model" in trainer.inputs, "last_blessed_model" in evaluator.inputs) == inputs


def test_last_blessed_model_is_one_of_the_same_pipeline(config: PipelineConfig) -> None:
    """Two pipelines in one metadata store do not see each other's models: the query is limited to the pipeline."""
    gated = dataclasses.replace(config, gates=Gates.of("accuracy drop vs last_blessed <= 0.01"))
    nodes = {
        node.pipeline_node.node_info.id: node.pipeline_node
        for node in compiler.Compiler().compile(create_pipeline(gated)).nodes
    }
    for spec in nodes["last_blessed"].inputs.inputs.values():
        for channel in spec.channels:
            queries = {(query.type.name, query.name.field_value.string_value) for query in channel.context_queries}
            assert queries == {("pipeline", "digits")}


def test_nothing_is_pushed_without_both_blessings(config: PipelineConfig) -> None:
    components = {component.id: component for component in pipeline_components(config)}
    inputs = components["Pusher"].inputs
    assert inputs["model_blessing"].producer_component_id == "QuantizedEvaluator"
    assert inputs["infra_blessing"].producer_component_id == "EdgeInfraValidator"
