"""How the components are connected."""

import dataclasses
import json
from typing import Any

import pytest
from tfx.dsl.compiler import compiler
from tfx.dsl.components.common.resolver import Resolver
from tfx.types import standard_artifacts

from components.evaluation.gates import Gates
from components.evaluation.smoke_process import Limits
from components.evaluation.smoke_settings import Smoke, SmokeSettings
from components.quantization.storable_text import with_backslashes
from components.retraining.spans import SpanSource
from components.targets.edge_tpu import CompilerOptions
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.pipeline import create_pipeline, pipeline_components
from pipelines.runners import kubeflow, vertex
from pipelines.target_plan import TargetPlan


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


def test_models_are_compared_without_a_gate_when_the_config_says_so(config: PipelineConfig) -> None:
    by_default = {component.id: component for component in pipeline_components(config)}["QuantizedEvaluator"].inputs
    assert ("fake_quant_model" in by_default, "last_blessed_model" in by_default) == (True, False)
    both = dataclasses.replace(config, also_compared=("fake_quant", "last_blessed"))
    components = {component.id: component for component in pipeline_components(both)}
    assert {"fake_quant_model", "last_blessed_model"} <= set(components["QuantizedEvaluator"].inputs)
    with pytest.raises(ValueError, match="also_compared=.*float.*some of 'fake_quant', 'last_blessed'"):
        dataclasses.replace(config, also_compared=("float",))


def test_several_outputs_and_weights_reach_trainer_and_evaluator(config: PipelineConfig) -> None:
    several = dataclasses.replace(
        config,
        label_key={"digit": "label", "brightness": "image"},
        weight_key="label",
        metrics={"digit/accuracy": "SparseCategoricalAccuracy", "brightness/error": "MeanAbsoluteError"},
        gates=Gates.of("accuracy of digit drop <= 0.01", "error of brightness <= 2"),
    )
    components = {component.id: component for component in pipeline_components(several)}
    assert components["QuantizeTrainer"].exec_properties["training_only"] == '["image", "label"]'
    evaluation = json.loads(with_backslashes(components["QuantizedEvaluator"].exec_properties["eval_config"]))
    assert evaluation["model_specs"][0]["label_keys"] == {"digit": "label", "brightness": "image"}
    assert evaluation["model_specs"][0]["example_weight_key"] == "label"
    assert [spec["output_names"] for spec in evaluation["metrics_specs"]] == [["digit"], ["brightness"]]
    assert several.evaluation.headline == ("digit", "accuracy")
    assert config.evaluation.headline == ("", "accuracy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": Gates.of("accuracy >= 0.9")}, "gate 'accuracy >= 0.9': no output ''; there are digit"),
        ({"metrics": {"size/error": "MeanAbsoluteError"}}, "metrics of outputs size, which have no label_key"),
        ({"gates": Gates.of("agreement of digit >= 0.9"), "weight_key": "price"}, "weight_key or slices name price"),
    ],
)
def test_outputs_and_weights_that_are_not_there_are_refused_when_the_pipeline_is_built(
    config: PipelineConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline_components(dataclasses.replace(config, label_key={"digit": "label"}, **changes))


def _gated(config: PipelineConfig) -> PipelineConfig:
    return dataclasses.replace(config, gates=Gates.of("accuracy drop vs last_blessed <= 0.01"))


def test_last_blessed_model_is_one_of_the_same_pipeline_task_and_target(config: PipelineConfig) -> None:
    nodes = {
        node.pipeline_node.node_info.id: node.pipeline_node
        for node in compiler.Compiler().compile(create_pipeline(_gated(config))).nodes
    }
    inputs = nodes["last_blessed"].inputs
    (graph,) = inputs.input_graphs.values()
    (op,) = [node.op_node for node in graph.nodes.values() if node.HasField("op_node")]
    assert op.op_type == "components.last_blessed.LastBlessedModelStrategy"
    assert op.kwargs["origin"].value.field_value.string_value == "digits/pipelines.tasks.digits/edge_tpu"
    for spec in inputs.inputs.values():
        for channel in spec.channels:
            queries = {(query.type.name, query.name.field_value.string_value) for query in channel.context_queries}
            assert queries == {("pipeline", "digits")}


def test_vertex_looks_for_blessings_of_the_same_pipeline_task_and_target(config: PipelineConfig) -> None:
    deployment = dataclasses.replace(config.deployment, image="image:1")
    job = vertex.compile_job(dataclasses.replace(_gated(config), root="gs://bucket/digits", deployment=deployment))
    resolvers = [
        query["filter"]
        for executor in job["pipelineSpec"]["deploymentSpec"]["executors"].values()
        for query in executor.get("resolver", {}).get("outputArtifactQueries", {}).values()
    ]
    origin = 'metadata.origin.string_value="digits/pipelines.tasks.digits/edge_tpu"'
    assert sorted(origin in query for query in resolvers) == [False, True]
    assert all(origin in query or "current_model_id" in query for query in resolvers)


def _drifting(config: PipelineConfig, *gates: str) -> PipelineConfig:
    return dataclasses.replace(config, gates=Gates.of("accuracy >= 0.9", *gates))


def test_drift_is_gated_before_transform_and_again_by_the_evaluator(config: PipelineConfig) -> None:
    components = {one.id: one for one in pipeline_components(_drifting(config, "drift of image <= 0.1"))}
    assert components["SpanDrift"].inputs["baseline_model"].producer_component_id == "last_blessed"
    assert components["DriftGate"] in components["Transform"].upstream_nodes
    assert json.loads(components["SpanDrift"].exec_properties["gates"]) == {
        "edge_tpu": Gates.of("drift of image <= 0.1").to_json()
    }
    assert components["QuantizedEvaluator"].inputs["drift"].producer_component_id == "SpanDrift"
    assert not {"SpanDrift", "DriftGate", "last_blessed"} & {one.id for one in pipeline_components(config)}


def test_drift_of_spans_is_measured_without_a_gate_and_stops_nothing(config: PipelineConfig) -> None:
    spans = SpanSource(pattern="data/span-{SPAN}/*.tfrecord")
    ids = [one.id for one in pipeline_components(dataclasses.replace(config, spans=spans))]
    assert ("SpanDrift" in ids, "DriftGate" in ids) == (True, False)


def test_run_is_not_stopped_for_drift_while_a_target_has_no_gate_on_it(config: PipelineConfig) -> None:
    gated = TargetPlan(target="edge_tpu", gates=Gates.of("accuracy >= 0.9", "drift <= 0.1"))
    several = dataclasses.replace(config, targets=(gated, TargetPlan(target="cpu")))
    ids = [one.id for one in pipeline_components(several)]
    assert ("SpanDrift" in ids, "DriftGate" in ids) == (True, False)


def test_gate_on_drift_of_what_is_no_feature_is_refused_when_the_pipeline_is_built(config: PipelineConfig) -> None:
    with pytest.raises(ValueError, match="gates on drift name colour, no feature of the task; there are image, label"):
        pipeline_components(_drifting(config, "drift of colour <= 0.1"))
    pipeline_components(_drifting(config, "drift of inputs/image/mean <= 0.1"))


def test_vertex_gates_drift_against_the_last_blessed_model(config: PipelineConfig) -> None:
    deployment = dataclasses.replace(config.deployment, image="image:1")
    drifting = dataclasses.replace(_drifting(config, "drift <= 0.1"), root="gs://bucket/digits", deployment=deployment)
    tasks = vertex.compile_job(drifting)["pipelineSpec"]["components"]["tfx-dag"]["dag"]["tasks"]
    assert "DriftGate" in tasks["Transform"]["dependentTasks"]
    assert "SpanDrift" in tasks["DriftGate"]["dependentTasks"]
    baseline = tasks["SpanDrift"]["inputs"]["artifacts"]["baseline_model"]["taskOutputArtifact"]
    assert baseline["producerTask"] == "last_blessed-model-resolver"


def test_kubeflow_refuses_what_needs_a_resolver(config: PipelineConfig) -> None:
    for needing in (_gated(config), dataclasses.replace(config, warm_start=True)):
        with pytest.raises(ValueError, match="Kubeflow finds no last blessed model"):
            kubeflow.compile_job(needing)


def test_evaluator_goes_by_the_compiler_options_of_the_compiler(config: PipelineConfig) -> None:
    options = CompilerOptions(min_runtime_version=13)
    components = {one.id: one for one in pipeline_components(dataclasses.replace(config, compiler_options=options))}
    compiled = components["EdgeTPUCompiler"].exec_properties["options"]
    assert components["QuantizedEvaluator"].exec_properties["compiler_options"] == compiled == options.to_json()


def test_nothing_is_pushed_without_both_blessings(config: PipelineConfig) -> None:
    components = {component.id: component for component in pipeline_components(config)}
    inputs = components["Pusher"].inputs
    assert inputs["model_blessing"].producer_component_id == "QuantizedEvaluator"
    assert inputs["infra_blessing"].producer_component_id == "EdgeInfraValidator"


def test_validator_asks_what_the_config_says(config: PipelineConfig) -> None:
    settings = SmokeSettings(max_lsb=2, file_bytes=10**5, limits=Limits(seconds=30))
    components = pipeline_components(dataclasses.replace(config, smoke=settings))
    validator = next(component for component in components if component.id == "EdgeInfraValidator")
    assert Smoke.from_json(validator.exec_properties["smoke"]) == Smoke.of(config.target, settings)


def test_last_blessed_model_must_be_one_that_the_validator_blessed(config: PipelineConfig) -> None:
    resolver = next(one for one in pipeline_components(_gated(config)) if one.id == "last_blessed")
    assert resolver.inputs["infra_blessing"].type is standard_artifacts.InfraBlessing


def test_pipeline_gives_postgresql_no_backslash(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    served = dataclasses.replace(config, metadata="postgresql://ann@host/mlmd")
    create_pipeline(served)
    monkeypatch.setattr("pipelines.tasks.digits.LABELS", (*"012345678", "neuf é"))
    with pytest.raises(ValueError, match=r"backslashes in TFLiteIntConverter.labels, which ML Metadata's client"):
        create_pipeline(served)
    create_pipeline(config)
