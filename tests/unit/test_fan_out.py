"""One trained model for several targets: config, components, jobs and the table of results."""

import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tfx.dsl.compiler import compiler
from tfx.dsl.components.common.resolver import Resolver

from components.evaluation.gates import Gates, Override
from components.evaluation.smoke_settings import SmokeSettings
from components.quantization.qat.parameters import TrainingParameters
from components.target_gates import planned_target
from pipelines.__main__ import _config_of_scheduled_run
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.job_spec import containers_of, tasks_of
from pipelines.local_compilers import require_compilers
from pipelines.pipeline import create_pipeline, pipeline_components
from pipelines.runners import kubeflow, vertex
from pipelines.target_matrix import TargetRow, matrix_json, matrix_markdown
from pipelines.target_plan import TargetPlan

_EACH = ("TFLiteIntConverter", "EdgeInfraValidator", "QuantizedEvaluator", "Pusher")
# What Kubernetes takes as a part of names, but for capitals, which TFX's own components have.
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?")


@pytest.fixture
def config() -> PipelineConfig:
    plans = (
        TargetPlan(
            target="edge_tpu", io_dtype="uint8", gates=Gates.of("accuracy drop <= 0.01", "macs_on_target >= 0.9")
        ),
        TargetPlan(target="cpu", smoke=SmokeSettings(file_bytes=100_000)),
    )
    return dataclasses.replace(load_config("digits"), targets=plans)


def _service(config: PipelineConfig, root: str) -> PipelineConfig:
    return dataclasses.replace(config, root=root, deployment=dataclasses.replace(config.deployment, image="image:1"))


def test_components_are_there_once_for_each_target_behind_one_trainer(config: PipelineConfig) -> None:
    components = {component.id: component for component in pipeline_components(config)}
    assert [name for name in components if "-" not in name][-2:] == ["Transform", "QuantizeTrainer"]
    expected = {f"{kind}-{target}" for kind in _EACH for target in ("edge-tpu", "cpu")}
    assert {name for name in components if "-" in name} == expected | {"EdgeTPUCompiler-edge-tpu", "TargetCompiler-cpu"}
    for target in ("edge-tpu", "cpu"):
        pusher = components[f"Pusher-{target}"]
        assert pusher.inputs["model_blessing"].producer_component_id == f"QuantizedEvaluator-{target}"
        assert pusher.inputs["infra_blessing"].producer_component_id == f"EdgeInfraValidator-{target}"
        assert target.replace("-", "_") in pusher.exec_properties["push_destination"]
        converter = components[f"TFLiteIntConverter-{target}"]
        assert converter.inputs["model"].producer_component_id == "QuantizeTrainer"
    compiler.Compiler().compile(create_pipeline(config))


def test_each_target_has_its_own_types_gates_and_budgets(config: PipelineConfig) -> None:
    components = {component.id: component.exec_properties for component in pipeline_components(config)}
    profiles = [components[f"TFLiteIntConverter-{target}"] for target in ("edge-tpu", "cpu")]
    assert [(one["profile"], one["io_dtype"]) for one in profiles] == [("edge_tpu", "uint8"), ("cpu", "")]
    gates = [
        json.loads(components[f"QuantizedEvaluator-{target}"]["gates"])["bounds"] for target in ("edge-tpu", "cpu")
    ]
    assert gates == [["accuracy drop <= 0.01", "macs_on_target >= 0.9"], ["accuracy >= 0.97", "accuracy drop <= 0.01"]]
    assert json.loads(components["EdgeInfraValidator-cpu"]["smoke"])["file_bytes"] == 100_000


def test_trainer_is_told_all_targets_with_the_gates_that_a_training_can_hold(config: PipelineConfig) -> None:
    def told(one: PipelineConfig) -> list[tuple[str, int]]:
        (trainer,) = (component for component in pipeline_components(one) if component.id == "QuantizeTrainer")
        targets = planned_target.from_json(trainer.exec_properties["targets"])
        return [(target.target, len(target.gates.bounds)) for target in targets]

    assert told(config) == [("edge_tpu", 1), ("cpu", 0)]
    assert told(dataclasses.replace(config, training=TrainingParameters(strategy="auto"))) == [
        ("edge_tpu", 2),
        ("cpu", 2),
    ]


def test_last_blessed_model_is_looked_for_by_target_when_its_gates_ask(config: PipelineConfig) -> None:
    gated = dataclasses.replace(config.targets[1], gates=Gates.of("accuracy drop vs last_blessed <= 0.01"))
    one = dataclasses.replace(config, targets=(config.targets[0], gated))
    components = {component.id: component for component in pipeline_components(one)}
    assert [name for name, component in components.items() if isinstance(component, Resolver)] == ["last_blessed-cpu"]
    assert "last_blessed_model" in components["QuantizedEvaluator-cpu"].inputs
    assert "last_blessed_model" not in components["QuantizedEvaluator-edge-tpu"].inputs
    warm = dataclasses.replace(one, warm_start=True)
    trainer = {component.id: component for component in pipeline_components(warm)}["QuantizeTrainer"]
    assert trainer.inputs["warm_start_model"].producer_component_id == "last_blessed-edge-tpu"


def test_vertex_looks_for_the_blessings_of_each_target(config: PipelineConfig) -> None:
    gates = Gates.of("accuracy drop vs last_blessed <= 0.01")
    plans = tuple(dataclasses.replace(plan, gates=gates) for plan in config.targets)
    job = vertex.compile_job(_service(dataclasses.replace(config, targets=plans), "gs://bucket/digits"))
    origins = {
        (label.partition("last_blessed-")[2].startswith("cpu"), query["filter"].rpartition("/")[2].strip('"'))
        for label, executor in job["pipelineSpec"]["deploymentSpec"]["executors"].items()
        for query in executor.get("resolver", {}).get("outputArtifactQueries", {}).values()
        if "origin" in query["filter"]
    }
    assert origins == {(True, "cpu"), (False, "edge_tpu")}


@pytest.mark.parametrize("service", [kubeflow, vertex], ids=["kubeflow", "vertex"])
def test_jobs_have_valid_names_and_a_verdict_for_each_target(config: PipelineConfig, service: Any) -> None:
    job = service.compile_job(_service(config, "gs://bucket/digits"))
    names = set(containers_of(job))
    assert {"VerdictRecorder-edge-tpu", "VerdictRecorder-cpu", "Pusher-cpu", "RunReporter"} <= names
    assert [name for name in names if not _NAME.fullmatch(name)] == []
    for target in ("edge-tpu", "cpu"):
        recorder = tasks_of(job)[f"VerdictRecorder-{target}"]
        assert "cachingOptions" not in recorder
        assert {f"QuantizedEvaluator-{target}", f"Pusher-{target}"} <= set(recorder["dependentTasks"])
    parameters = tasks_of(job)["RunReporter"]["inputs"]["parameters"]
    assert json.loads(parameters["targets"]["runtimeValue"]["constant"]) == ["edge_tpu", "cpu"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "int16x8"}, "targets: edge_tpu: target 'edge_tpu' cannot run scheme 'int16x8'"),
        ({"targets": (TargetPlan(target="abacus"),)}, "targets: abacus: unknown target 'abacus'"),
        ({"targets": (TargetPlan(target="cpu"),) * 2}, "targets: cpu twice .*; targets: two push into one directory"),
        ({"io_dtype": "uint8", "push_dir": "/x"}, "io_dtype, push_dir beside targets"),
        (
            {"targets": (TargetPlan(target="cpu", io_dtype="int9"), TargetPlan(target="edge_tpu", io_dtype="int7"))},
            "targets: cpu: io_dtype: got 'int9'.*; targets: edge_tpu: io_dtype: got 'int7'",
        ),
        ({"targets": (TargetPlan(target="cpu", gates=Gates.of("f1 >= 1")),)}, "metrics that are not computed: f1"),
    ],
    ids=["scheme", "unknown", "twice", "beside", "all", "gates"],
)
def test_config_names_the_target_when_it_is_wrong(
    config: PipelineConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        dataclasses.replace(config, **changes)
    assert "target 'cpu' cannot" not in str(raised.value)


def test_gates_overrides_and_choice_of_a_target_reach_each_plan(config: PipelineConfig) -> None:
    gated = config.with_gates(("model_bytes <= 90000",))
    assert all("model_bytes <= 90000" in map(str, plan.gates.bounds) for plan in gated.plans)
    passed = config.with_overrides(("macs_on_target >= 0.9",), "a new compiler", "2999-12-31")
    again = passed.with_overrides((str(passed.gates.bounds[0]),), "another reason", "2999-12-31")
    assert "macs_on_target >= 0.9" in {one.gate for plan in again.plans for one in plan.gates.overrides}
    assert [len(plan.gates.overrides) for plan in passed.plans] == [1, 0]
    with pytest.raises(ValueError, match="override of 'f1 >= 1', which is no gate"):
        config.with_overrides(("f1 >= 1",), "why", "2999-12-31")
    with pytest.raises(ValueError, match="override of 'macs_on_target >= 0.9' expired on 2020-12-31"):
        config.with_overrides(("macs_on_target >= 0.9",), "a new compiler", "2020-12-31")
    (only,) = config.for_target("cpu").plans
    assert (only.target, only.suffix, only.push_uri) == ("cpu", "-cpu", config.plans[1].push_uri)
    with pytest.raises(ValueError, match="target 'tflm' is none of its targets; there are edge_tpu, cpu"):
        config.for_target("tflm")


def test_config_can_be_read_when_an_override_has_expired_but_makes_no_pipeline(config: PipelineConfig) -> None:
    override = Override(gate="macs_on_target >= 0.9", because="a new compiler", until=datetime.date(2020, 12, 31))
    plan = config.targets[0]
    gates = dataclasses.replace(plan.gates, overrides=(override,))
    read = dataclasses.replace(config, targets=(dataclasses.replace(plan, gates=gates), *config.targets[1:]))
    assert read.push_uri == config.push_uri  # what rollback and lineage want of it
    with pytest.raises(ValueError, match="override of 'macs_on_target >= 0.9' expired on 2020-12-31"):
        create_pipeline(read)


def _row(**changes: Any) -> TargetRow:
    fields: dict[str, Any] = {
        "target": "cpu",
        "blessed": True,
        "metric": "accuracy",
        "float_accuracy": 0.98,
        "integer_accuracy": 0.97,
        "ops_on_target": 7,
        "ops": 8,
        "macs_on_target": 300,
        "macs": 400,
        "model_bytes": 12_345,
        "latency": "1234 cycles (vela)",
        "basis": "vela 4.0",
        "compiled": True,
        "pushed_version": "20260101-abc",
        "reasons": ("holds: accuracy >= 0.9 (accuracy is 0.97)",),
    }
    return TargetRow(**{**fields, **changes})


def test_matrix_has_a_row_for_each_target_and_says_what_is_unknown() -> None:
    rows = [
        _row(),
        _row(
            target="x",
            blessed=False,
            macs=None,
            latency="",
            compiled=False,
            pushed_version="",
            float_accuracy=float("nan"),
        ),
    ]
    lines = matrix_markdown(rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:4]]
    known = ["7 of 8", "75.0% of 400", "12,345", "1234 cycles (vela)", "by vela 4.0", "20260101-abc"]
    assert cells[0] == ["cpu", "yes", "0.9800", "0.9700", "+0.0100", *known]
    assert cells[1][6:] == ["unknown", "12,345", "unknown", "no: vela 4.0", "no"]
    assert "- holds: accuracy >= 0.9 (accuracy is 0.97)" in lines
    first, second = json.loads(matrix_json(rows))["targets"]
    assert (first["drop"], first["pushed_version"]) == (pytest.approx(0.01), "20260101-abc")
    assert (second["float_accuracy"], second["macs"]) == (None, None)


def test_run_here_is_refused_before_anything_when_a_compiler_is_missing_that_it_needs(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    require_compilers(config)  # the model is analysed then
    failing = dataclasses.replace(config.targets[0], when_missing="fail")
    with pytest.raises(
        ValueError, match="not on this machine of target edge_tpu \\(when_missing='fail'\\): install it"
    ):
        require_compilers(dataclasses.replace(config, targets=(failing, config.targets[1])))
    gated = dataclasses.replace(config.targets[0], gates=Gates(require_compiled=True))
    with pytest.raises(ValueError, match="of target edge_tpu \\(require_compiled\\)"):
        require_compilers(dataclasses.replace(config, targets=(gated,)))
    with pytest.raises(ValueError, match="not on this machine of target edge_tpu"):
        _config_of_scheduled_run(["digits", "--require-compiled"])
    program = tmp_path / "edgetpu_compiler"
    program.write_text("#!/bin/sh\necho Edge TPU Compiler version 16.0.384591198\n")
    program.chmod(0o755)
    require_compilers(dataclasses.replace(config, targets=(gated,)))


def test_pipeline_is_refused_when_a_target_without_a_compiler_is_to_be_compiled(config: PipelineConfig) -> None:
    gated = dataclasses.replace(config.targets[1], gates=Gates(require_compiled=True))
    with pytest.raises(ValueError, match="require_compiled, but target 'cpu' has no compiler: no model would pass"):
        create_pipeline(dataclasses.replace(config, targets=(config.targets[0], gated)))
