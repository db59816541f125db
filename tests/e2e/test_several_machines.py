"""A job compiled for several training machines, run as Vertex runs it: a process for each replica of the custom job."""

import copy
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.quantization.qat.parameters import TrainingParameters
from pipelines.configs import load_config
from pipelines.deployment import Deployment
from pipelines.runners import load_service

from conftest_e2e import vertex_properties
from object_store import object_store
from pipeline_service import JobRun, PipelineService, container_environment

Json = dict[str, Any]
pytestmark = pytest.mark.long
_REPOSITORY = Path(__file__).parents[2]
_TRAINER, _CONVERTER = "QuantizeTrainer", "TFLiteIntConverter"


@dataclasses.dataclass(frozen=True)
class _Runs:
    """The same training on one machine and on three, whose first attempt is killed in the middle.

    Attributes:
      one: The run on one machine.
      several: The run on several.
      objects: All objects in the bucket.
      logs: Directory with the logs of the run on several machines.
    """

    one: JobRun
    several: JobRun
    objects: dict[str, bytes]
    logs: Path


def _compiled(machines: int, last: str) -> Json:
    """The digits, trained for a few epochs, up to the last task that is wanted."""
    training = TrainingParameters(
        float_epochs=4,
        qat_epochs=2,
        batch_size=48,
        float_learning_rate=2e-3,
        qat_learning_rate=2e-4,
        distribution="multi_worker_mirrored" if machines > 1 else "none",
    )
    deployment = Deployment(
        image="europe-docker.pkg.dev/project/images/tfx-qat:0.1.0",
        training_machines=machines,
        training_machine_type="n1-standard-4" if machines > 1 else "",
    )
    config = dataclasses.replace(
        load_config("digits"), root="gs://bucket/digits", training=training, deployment=deployment
    )
    job = copy.deepcopy(load_service("vertex").compile_job(config))
    tasks = job["pipelineSpec"]["components"]["tfx-dag"]["dag"]["tasks"]
    wanted = [last]
    for name in wanted:
        wanted += [other for other in tasks[name].get("dependentTasks", []) if other not in wanted]
    job["pipelineSpec"]["components"]["tfx-dag"]["dag"]["tasks"] = {name: tasks[name] for name in wanted}
    del job["pipelineSpec"]["root"]["dag"]["tasks"]["RunReporter"]
    return job


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Runs]:
    directory = tmp_path_factory.mktemp("machines")
    with object_store() as store:
        found = {**store.environment, "PYTHONPATH": str(_REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
        environment = container_environment(Path(sys.executable).parent.parent, directory, found)
        store.make_bucket("bucket")
        store.put("bucket", "digits/examples/digits.tfrecord", _examples(directory))
        service = PipelineService(
            environment, directory / "logs", lambda uri: store.objects("bucket").get(uri.removeprefix("gs://bucket/"))
        )
        one = service.run(_compiled(1, _TRAINER))
        several = service.run(_compiled(3, _CONVERTER), preempt={_TRAINER: "epoch 2"})
        yield _Runs(one, several, store.objects("bucket"), directory / "logs")


def _examples(directory: Path) -> bytes:
    from pipelines.tasks.digits import write_examples

    write_examples(directory)
    return (directory / "digits.tfrecord").read_bytes()


def _errors(run: JobRun) -> str:
    return "\n".join(f"{name}: {task.error}" for name, task in run.tasks.items() if task.error)


def test_job_on_several_machines_ends_well_after_its_first_attempt_was_killed(runs: _Runs) -> None:
    assert runs.one.tasks[_TRAINER].state == "SUCCEEDED", _errors(runs.one)
    trainer = runs.several.tasks[_TRAINER]
    assert (trainer.state, trainer.attempts) == ("SUCCEEDED", 2), _errors(runs.several)
    assert runs.several.tasks[_CONVERTER].state == "SUCCEEDED", _errors(runs.several)
    assert runs.several.tasks["Transform"].state == "SKIPPED"  # what the run on one machine made


def test_chief_alone_publishes_what_several_machines_trained(runs: _Runs) -> None:
    outputs = runs.several.tasks[_TRAINER].outputs
    (directory,) = {artifact["uri"].rsplit("/", 1)[0] for (artifact,) in outputs.values()}
    prefix = f"{directory.removeprefix('gs://bucket/')}/"
    files = {name.removeprefix(prefix) for name in runs.objects if name.startswith(prefix) and not name.endswith("/")}
    assert {name.split("/")[0] for name in files} == {"executor_output.json", "float_model", "model", "model_run"}
    assert not [name for name in files if ".partial" in name]
    written = json.loads(runs.objects[f"{prefix}executor_output.json"])["artifacts"]["model"]["artifacts"][0]
    facts = json.loads(runs.objects[f"{prefix}model/facts.json"])
    assert {name: written["metadata"][name] for name in facts} == facts
    logs = sorted(runs.logs.glob("*-QuantizeTrainer-2/*/log"))
    assert [path.parent.name for path in logs] == ["chief-0", "worker-0", "worker-1"]


def test_model_of_several_machines_is_that_of_one_within_noise(runs: _Runs) -> None:
    one, several = (vertex_properties(run, _TRAINER, "model") for run in (runs.one, runs.several))
    assert several["eval_loss"] == pytest.approx(one["eval_loss"], rel=0.15)
    assert several["eval_accuracy"] == pytest.approx(one["eval_accuracy"], abs=0.02)
    assert several["training_examples_sha256"] == one["training_examples_sha256"]


def test_integer_model_descends_from_what_several_machines_trained(runs: _Runs) -> None:
    trained = vertex_properties(runs.several, _TRAINER, "model")
    converted = vertex_properties(runs.several, _CONVERTER, "tflite_model")
    assert converted["parent_sha256"] == trained["sha256"]
