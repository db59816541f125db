"""Beam's arguments: of each runner, refused where wrong, and in what is compiled for each orchestrator."""

import dataclasses
from typing import Any

import pytest
from apache_beam.options import pipeline_options as beam_options
from click.testing import CliRunner
from tfx.dsl.compiler.compiler import Compiler
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2

from pipelines.__main__ import main
from pipelines.beam_runners import BeamRunner, load_beam_runner, parse_beam_runner
from pipelines.beam_runners.dataflow import Dataflow
from pipelines.beam_runners.direct import Direct
from pipelines.beam_runners.flink import Flink
from pipelines.beam_runners.portable import Portable
from pipelines.beam_runners.spark import Spark
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.deployment import Deployment
from pipelines.job_spec import containers_of
from pipelines.pipeline import create_pipeline
from pipelines.runners import load_service

_IMAGE = "europe-docker.pkg.dev/project/images/tfx-qat:0.1.0"
_BEAM_COMPONENTS = {"ImportExampleGen", "StatisticsGen", "Transform", "QuantizedEvaluator"}
_DATAFLOW = Dataflow(project="my-project", region="europe-west4", temp_location="gs://bucket/temp", max_workers=8)
_FLINK = Flink(job_endpoint="flink-jobs:8099", environment="external", environment_config="localhost:50000")


def _config(beam: BeamRunner, **changes: Any) -> PipelineConfig:
    given = {
        "root": "gs://bucket/digits",
        "metadata": "metadata.sqlite",
        "deployment": Deployment(image=_IMAGE),
        "beam": beam,
    }
    return dataclasses.replace(load_config("digits"), **{**given, **changes})


def _parsed(runner: BeamRunner) -> dict[str, Any]:
    """What Beam itself makes of the arguments."""
    found: dict[str, Any] = beam_options.PipelineOptions(list(runner.arguments(_IMAGE))).get_all_options()
    return found


@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        (Direct(), {"direct_running_mode": "in_memory", "direct_num_workers": 1, "sdk_container_image": "none"}),
        (Direct(mode="multi_processing", workers=3), {"direct_num_workers": 3}),
        (
            dataclasses.replace(_DATAFLOW, workers=2, labels=("team=vision", "cost=42"), public_ips=False),
            {
                "runner": "DataflowRunner",
                "project": "my-project",
                "region": "europe-west4",
                "temp_location": "gs://bucket/temp",
                "staging_location": "gs://bucket/temp",
                "sdk_container_image": _IMAGE,
                "sdk_location": "container",
                "num_workers": 2,
                "max_num_workers": 8,
                "labels": ["team=vision", "cost=42"],
                "use_public_ips": False,
            },
        ),
        (
            dataclasses.replace(_FLINK, parallelism=16, workers_per_machine=4),
            {
                "runner": "FlinkRunner",
                "job_endpoint": "flink-jobs:8099",
                "environment_type": "EXTERNAL",
                "environment_config": "localhost:50000",
                "parallelism": 16,
            },
        ),
        (Flink(master="http://flink:8081"), {"flink_master": "http://flink:8081", "environment_config": _IMAGE}),
        (
            Spark(
                master="spark://head:7077",
                job_server_jar="/opt/beam.jar",
                environment="process",
                environment_config="/opt/apache/beam/boot",
            ),
            {
                "runner": "SparkRunner",
                "spark_master_url": "spark://head:7077",
                "spark_job_server_jar": "/opt/beam.jar",
                "environment_type": "PROCESS",
                "environment_config": '{"command": "/opt/apache/beam/boot"}',
            },
        ),
        (
            Portable(job_endpoint="localhost:8099", environment="loopback"),
            {"runner": "PortableRunner", "environment_type": "LOOPBACK", "environment_config": None},
        ),
        (Direct(further_args=("--experiments=a", "--experiments=b")), {"experiments": ["a", "b"]}),
    ],
)
def test_arguments_are_what_beam_reads_the_settings_from(runner: BeamRunner, expected: dict[str, Any]) -> None:
    assert {name: _parsed(runner)[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "dataflow",
            {},
            r"Beam's runner dataflow: no project \(an id .*; no region \(.*; no temp_location \(such as 'gs://",
        ),
        (
            "dataflow",
            {"project": "123", "region": "Europe", "temp_location": "/tmp", "staging_location": "s3://x"},
            r"project='123' .*; region='Europe' .*; temp_location='/tmp' .*; staging_location='s3://x'",
        ),
        (
            "dataflow",
            {**dataclasses.asdict(_DATAFLOW), "workers": 9, "disk_gb": -1},
            r"disk_gb=-1 \(0 or more\); workers=9 above max_workers=8",
        ),
        ("dataflow", {**dataclasses.asdict(_DATAFLOW), "labels": ("Team",)}, r"label 'Team' \(as 'team=vision'\)"),
        ("direct", {"workers": 2}, r"workers=2 with mode 'in_memory', which has one \(take mode 'multi_processing'\)"),
        ("direct", {"mode": "fast", "workers": 0}, r"mode='fast' \(one of .*; workers=0 \(at least 1\)"),
        ("flink", {}, r"no job_endpoint and no master \(host:port of the job server, or 'http://host:8081'\)"),
        ("flink", {"job_endpoint": "a:1", "master": "b:2"}, r"job_endpoint beside master \(one of them\)"),
        ("flink", {"job_endpoint": "a:1", "job_server_jar": "x.jar"}, "job_server_jar without master"),
        ("flink", {"job_endpoint": "a:1", "parallelism": -1}, r"parallelism=-1 \(0 or more\)"),
        ("spark", {"master": "http://head"}, r"master='http://head' \(such as 'spark://host:7077'\)"),
        ("portable", {"job_endpoint": "nowhere"}, r"job_endpoint='nowhere' \(host:port of the job server\)"),
        ("portable", {"job_endpoint": "a:1", "environment": "vm"}, r"environment='vm' \(one of docker, external, "),
        (
            "portable",
            {"job_endpoint": "a:1", "environment": "external"},
            r"environment_config='' for environment 'external' \(the address of a worker pool",
        ),
        ("direct", {"further_args": ("--runner=X", "x", "--a=1", "--a=2")}, r"'x' .*--runner \(a field .*--a twice"),
        ("flink", {"job_endpoint": "a:1", "further_args": ("--job_endpoint=b:2",)}, r"--job_endpoint \(a field says"),
    ],
)
def test_beam_runner_names_every_mistake_when_settings_are_wrong(
    name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_beam_runner(name)(**settings)


def test_load_beam_runner_lists_what_there_is_when_the_name_is_unknown() -> None:
    with pytest.raises(
        ValueError, match="unknown Beam runner 'samza': there are dataflow, direct, flink, portable, sp"
    ):
        load_beam_runner("samza")


@pytest.mark.parametrize(
    "runner",
    [
        Direct(mode="multi_processing", workers=2),
        dataclasses.replace(_DATAFLOW, workers=1, disk_gb=9, machine_type="n", subnetwork="s", public_ips=False),
        _FLINK,
        Flink(master="a:1", job_server_jar="x", parallelism=2),
        Spark(master="spark://a:1", job_server_jar="x"),
        Portable(job_endpoint="a:1"),
    ],
    ids=lambda runner: runner.name,
)
def test_own_args_are_all_that_the_fields_are_turned_into(runner: BeamRunner) -> None:
    given = {arg.removeprefix("--").partition("=")[0] for arg in runner.arguments(_IMAGE)}
    assert given - {"runner"} <= type(runner).OWN_ARGS


def _local_arguments(config: PipelineConfig) -> dict[str, list[str]]:
    """Beam's arguments in what LocalDagRunner and BeamDagRunner execute, by component."""
    compiled = Compiler().compile(create_pipeline(config))
    deployment = pipeline_pb2.IntermediateDeploymentConfig()
    compiled.deployment_config.Unpack(deployment)
    found = {}
    for name, executor in deployment.executor_specs.items():
        spec = executable_spec_pb2.BeamExecutableSpec()
        if executor.Unpack(spec):
            found[name] = [one.value.string_value for one in spec.beam_pipeline_args_placeholders]
    return found


def test_compiled_pipelines_carry_the_arguments_to_each_component_that_computes_in_beam() -> None:
    config = _config(_DATAFLOW, component_beam={"StatisticsGen": _FLINK})
    expected = {name: list(_DATAFLOW.arguments(_IMAGE)) for name in _BEAM_COMPONENTS}
    expected["StatisticsGen"] = list(_FLINK.arguments())
    assert _local_arguments(config) == expected
    for service in ("vertex", "kubeflow"):
        containers = containers_of(load_service(service).compile_job(config))
        for name, container in containers.items():
            args = container.get("args", [])  # the page's has none
            beam = args[next((i for i, arg in enumerate(args) if arg.startswith("--runner=")), len(args)) :]
            assert beam == expected.get(name, [])
            assert not set(beam[1:]) & set(args[: len(args) - len(beam)])


def test_create_pipeline_names_what_beam_workers_cannot_see() -> None:
    beam = dataclasses.replace(_DATAFLOW, image="")
    changes = {"root": "runs/digits", "deployment": Deployment(), "component_beam": {"Pusher": Direct()}}
    with pytest.raises(ValueError, match="config 'digits': ") as caught:
        create_pipeline(_config(beam, **changes))
    for problem in (
        "component_beam names Pusher, no component that computes in Beam; there are ImportExampleGen, ",
        "Beam's runner dataflow: root 'runs/digits' (its workers see gs:// alone)",
        "Beam's runner dataflow: examples 'runs/digits/examples' (its workers see gs:// alone)",
        "Beam's runner dataflow: no image",
    ):
        assert str(caught.value).count(problem) == 1
    containers = Flink(job_endpoint="a:1")
    with pytest.raises(ValueError, match="root 'runs/digits' .its containers see object storage alone"):
        create_pipeline(_config(containers, root="runs/digits"))


def test_parse_beam_runner_reads_the_fields_types() -> None:
    options = ["project=my-project", "region=europe-west4", "temp_location=gs://bucket/temp", "max_workers=8"]
    more = ["public_ips=false", "labels=a=b", "labels=c=d", "further_args=--experiments=x"]
    expected = dataclasses.replace(
        _DATAFLOW, public_ips=False, labels=("a=b", "c=d"), further_args=("--experiments=x",)
    )
    assert parse_beam_runner("dataflow", options + more) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "samza"], "unknown Beam runner 'samza'"),
        (["--beam", "flink"], "no job_endpoint and no master"),
        (["--beam", "direct", "--beam-option", "worker=2"], "option 'worker=2', expected NAME=VALUE of further_args, "),
        (["--beam", "direct", "--beam-option", "workers=two"], "option 'workers=two', expected a whole number"),
        (["--beam", "direct", *(2 * ["--beam-option", "workers=1"])], "option workers is there twice"),
        (["--beam-option", "workers=2"], "--beam-option without --beam"),
    ],
)
def test_compile_says_what_is_wrong_with_beam_and_writes_nothing(
    options: list[str], message: str, tmp_path: Any
) -> None:
    output = tmp_path / "job.json"
    ran = CliRunner().invoke(main, ["compile", "digits", "--runner", "vertex", "-o", str(output), *options])
    assert ran.exit_code == 2
    assert message in " ".join(ran.output.split())
    assert not output.exists()
