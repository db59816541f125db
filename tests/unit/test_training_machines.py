"""Jobs whose training takes several machines: what is compiled, what each machine is told, and what is refused."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.quantization.qat.parameters import TrainingParameters
from components.training_worker import worker_arguments
from pipelines import doctor
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.deployment import Deployment, Resources
from pipelines.job_spec import containers_of, tasks_of
from pipelines.runners import load_service
from pipelines.training_machines import LAUNCHER_IMAGE, programs_of

Json = dict[str, Any]
_IMAGE = "europe-docker.pkg.dev/project/images/tfx-qat:0.1.0"
_TRAINER_IMAGE = f"{_IMAGE}-gpu"


def _config(training: Json | None = None, **deployment: Any) -> PipelineConfig:
    settings: Json = {
        "image": _IMAGE,
        "images": {"QuantizeTrainer": _TRAINER_IMAGE},
        "resources": Resources(cpu_cores=2, memory_gb=8),
        "component_resources": {"QuantizeTrainer": Resources(accelerator="NVIDIA_L4", accelerator_count=2)},
        "labels": {"team": "vision"},
        "training_machines": 4,
        "training_machine_type": "g2-standard-24",
    }
    parameters = {"batch_size": 64, "distribution": "multi_worker_mirrored", **(training or {})}
    return dataclasses.replace(
        load_config("digits"),
        root="gs://bucket/digits",
        training=TrainingParameters(**parameters),
        deployment=Deployment(**{**settings, **deployment}),
    )


@pytest.fixture(scope="module")
def job() -> Json:
    return load_service("vertex").compile_job(_config())


@pytest.fixture(scope="module")
def job_on_one() -> Json:
    config = _config({"distribution": "mirrored"}, training_machines=1, training_machine_type="")
    return load_service("vertex").compile_job(config)


def _argument(job: Json, name: str) -> str:
    arguments: list[str] = containers_of(job)["QuantizeTrainer"]["args"]
    return arguments[arguments.index(name) + 1]


def test_compiled_job_is_one_that_vertex_takes(job: Json) -> None:
    from google.cloud.aiplatform_v1.types import CustomJob, PipelineJob

    json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    # Unknown fields are errors.
    assert PipelineJob.from_json(json.dumps(job)).display_name == "digits"
    custom = CustomJob.from_json(_argument(job, "--payload"))
    assert (custom.display_name, custom.labels["team"]) == ("digits-QuantizeTrainer", "vision")
    assert custom.job_spec.scheduling.restart_job_on_worker_restart


def test_worker_pools_are_a_chief_and_all_others_on_machines_with_the_accelerators(job: Json) -> None:
    pools = json.loads(_argument(job, "--payload"))["job_spec"]["worker_pool_specs"]
    assert [pool["replica_count"] for pool in pools] == [1, 3]
    assert pools[0]["container_spec"] == pools[1]["container_spec"]
    machine = {"machine_type": "g2-standard-24", "accelerator_type": "NVIDIA_L4", "accelerator_count": 2}
    assert [pool["machine_spec"] for pool in pools] == [machine] * 2


def test_each_machine_runs_what_one_machine_would(job: Json, job_on_one: Json) -> None:
    alone = containers_of(job_on_one)["QuantizeTrainer"]
    (program, _) = programs_of(containers_of(job)["QuantizeTrainer"])
    assert program["image"] == alone["image"] == _TRAINER_IMAGE
    assert program["command"] == ["python", "-m", "components.training_worker"]
    # The payload is JSON already, so that the service has to escape what it puts in.
    assert program["args"] == [text if text != "{{$}}" else "{{$.json_escape[1]}}" for text in alone["args"]]
    assert "{{$}}" in alone["args"]


def test_launcher_takes_no_accelerator_and_says_which_job_it_made(job: Json) -> None:
    launcher = containers_of(job)["QuantizeTrainer"]
    assert launcher["image"] == LAUNCHER_IMAGE
    assert "resources" not in launcher
    assert _argument(job, "--gcp_resources") == "{{$.outputs.parameters['gcp_resources'].output_file}}"
    outputs = job["pipelineSpec"]["components"]["QuantizeTrainer"]["outputDefinitions"]
    assert outputs["parameters"] == {"gcp_resources": {"parameterType": "STRING"}}


def test_several_machines_change_nothing_but_the_trainers_container_and_distribution(
    job: Json, job_on_one: Json
) -> None:
    several, one = containers_of(job), containers_of(job_on_one)
    assert [name for name in one if several[name] != one[name]] == ["QuantizeTrainer"]
    tasks, alone = tasks_of(job), tasks_of(job_on_one)
    for key in ("cachingOptions", "retryPolicy", "dependentTasks"):
        assert tasks["QuantizeTrainer"][key] == alone["QuantizeTrainer"][key]


def test_doctor_looks_at_the_launcher_and_at_what_it_launches(job: Json) -> None:
    assert doctor._spec_problems(job) == []
    assert {LAUNCHER_IMAGE, _TRAINER_IMAGE, _IMAGE} == doctor._images(job)
    executors = set(doctor._executors(job))
    assert {"components.training_worker", "components.quantize_trainer.Executor"} <= executors
    assert not [path for path in executors if path.startswith("google_cloud_pipeline_components")]


@pytest.mark.parametrize("payload", ["no JSON", "{}", '{"job_spec": {"worker_pool_specs": [{}]}}'])
def test_doctor_says_so_when_a_launcher_has_no_custom_job(job: Json, payload: str) -> None:
    broken = json.loads(json.dumps(job))
    arguments = containers_of(broken)["QuantizeTrainer"]["args"]
    arguments[arguments.index("--payload") + 1] = payload
    (problem,) = doctor._spec_problems(broken)
    assert "compile it again" in problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training_machines": 0}, r"training_machines=0 \(at least 1\)"),
        ({"training_machines": 2}, r"training_machine_type='' \(a type of machine, such as 'n1-standard-8'\)"),
        ({"training_machines": 2, "training_machine_type": "{{$}}"}, "training_machine_type='{{"),
        ({"training_machine_type": "n1-standard-8"}, "training_machine_type='n1-standard-8' with one machine"),
        (
            {
                "training_machines": 2,
                "training_machine_type": "n1-standard-8",
                "component_resources": {"QuantizeTrainer": Resources(cpu_cores=8)},
            },
            "cpu_cores or memory_gb of QuantizeTrainer .none; the training_machine_type",
        ),
    ],
)
def test_deployment_names_the_mistake_in_its_machines(settings: Json, message: str) -> None:
    with pytest.raises(ValueError, match=f"deployment: {message}"):
        Deployment(image=_IMAGE, **settings)


@pytest.mark.parametrize(
    ("training", "deployment", "message"),
    [
        (
            {"distribution": "mirrored"},
            {},
            "distribution='mirrored' with deployment.training_machines=4 .'multi_worker",
        ),
        (
            {},
            {"training_machines": 1, "training_machine_type": ""},
            "distribution='multi_worker_mirrored' with deployment.training_machines=1 .'multi_worker",
        ),
        ({"batch_size": 60}, {}, "training.batch_size=60 .a multiple of 8, the replicas on 4 machines"),
    ],
)
def test_config_names_what_does_not_fit_its_machines(training: Json, deployment: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _config(training, **deployment)


def test_kubeflow_refuses_several_machines() -> None:
    with pytest.raises(
        ValueError, match="Kubeflow trains on one machine, and deployment.training_machines is 4, which"
    ):
        load_service("kubeflow").compile_job(_config(component_resources={}))


_RUN = """
import dataclasses, sys
from components.quantization.qat.parameters import TrainingParameters
from pipelines import configs
from pipelines.deployment import Deployment
plain = configs.load_config("digits")
several = dataclasses.replace(
    plain,
    training=TrainingParameters(distribution="multi_worker_mirrored"),
    deployment=Deployment(training_machines=2, training_machine_type="n1-standard-8"),
)
configs.load_config = lambda name: several
from pipelines.__main__ import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", [["run", "--runner", "local"], ["run", "--runner", "beam"], ["schedule"]])
def test_runs_on_this_machine_are_refused_before_anything_is_written(tmp_path: Path, command: list[str]) -> None:
    root = tmp_path / "root"
    arguments = [sys.executable, "-c", _RUN, *command, "digits", "--root", str(root)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "a run on this machine trains on one machine, and deployment.training_machines is 2" in result.stderr
    assert not root.exists()


@pytest.mark.parametrize("is_chief", [True, False])
def test_worker_is_told_of_no_launcher_and_only_the_chief_of_the_output_file(tmp_path: Path, is_chief: bool) -> None:
    told = {
        "inputs": {"parameterValues": {"seed": 1}},
        "outputs": {
            "artifacts": {"model": {"artifacts": [{"uri": "gs://bucket/model"}]}},
            "outputFile": "gs://bucket/executor_output.json",
            "parameters": {"gcp_resources": {"outputFile": "gs://bucket/gcp_resources"}},
        },
    }
    before = ["--executor_class_path", "a.B", "--json_serialized_invocation_args", json.dumps(told), "--runner=Direct"]
    after = worker_arguments(before, is_chief, tmp_path)
    assert [*after[:3], *after[4:]] == [*before[:3], *before[4:]]
    place = "gs://bucket/executor_output.json" if is_chief else str(tmp_path / "executor_output.json")
    outputs = {"artifacts": told["outputs"]["artifacts"], "outputFile": place}
    assert json.loads(after[3]) == {"inputs": told["inputs"], "outputs": outputs}
