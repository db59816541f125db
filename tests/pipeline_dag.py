"""The tasks of one job in pipeline_service.py: their order, conditions, inputs and outputs, cache and retries."""

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import celpy
from celpy.adapter import json_to_cel

if TYPE_CHECKING:
    from pipeline_service import PipelineService

Json = dict[str, Any]

PROJECT = "123456789"
_RESOLVABLE = re.compile(r"\{\{\$.*?\}\}")
_BACKOFF_SCALE = 0.001  # of the policy's seconds: a test need not wait for a node to come back


@dataclasses.dataclass
class TaskRun:
    """What became of one task: SUCCEEDED, FAILED, SKIPPED (an earlier run reused), NOT_TRIGGERED or CANCELLED."""

    name: str
    state: str
    attempts: int = 0
    seconds: float = 0.0
    outputs: dict[str, list[Json]] = dataclasses.field(default_factory=dict)
    parameters: Json = dataclasses.field(default_factory=dict)
    error: str = ""


class Dag:
    """One job's tasks, run in the order of their dependencies."""

    def __init__(self, service: "PipelineService", job: Json, job_id: str, tasks: dict[str, TaskRun]) -> None:
        self._service = service
        self._spec = job["pipelineSpec"]
        self._root = job["runtimeConfig"]["gcsOutputDirectory"]
        self._fast = job["runtimeConfig"].get("failurePolicy") == "PIPELINE_FAILURE_POLICY_FAIL_FAST"
        self._job_id = job_id
        self._tasks = tasks

    def run(self, specs: Mapping[str, Json]) -> str:
        """Runs the tasks of one dag; returns SUCCEEDED or FAILED."""
        for name in _ordered(specs):
            self._tasks[name] = self._run_task(name, specs[name])
        return "FAILED" if any(self._tasks[name].state == "FAILED" for name in specs) else "SUCCEEDED"

    def _run_task(self, name: str, task: Json) -> TaskRun:
        trigger = task.get("triggerPolicy", {})
        upstream = [self._tasks[other].state for other in task.get("dependentTasks", [])]
        if trigger.get("strategy") != "ALL_UPSTREAM_TASKS_COMPLETED":
            if any(state in ("FAILED", "CANCELLED") for state in upstream):
                return TaskRun(name, "CANCELLED")
            if "NOT_TRIGGERED" in upstream:
                return TaskRun(name, "NOT_TRIGGERED")
            if self._fast and any(run.state == "FAILED" for run in self._tasks.values()):
                return TaskRun(name, "CANCELLED")
        component = self._spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            return TaskRun(name, self.run(component["dag"]["tasks"]))
        inputs = {key: self._artifacts(source) for key, source in task.get("inputs", {}).get("artifacts", {}).items()}
        if "condition" in trigger and not _holds(trigger["condition"], inputs):
            return TaskRun(name, "NOT_TRIGGERED")
        executor = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]
        parameters = self._parameters(task)
        if "importer" in executor:
            return TaskRun(name, "SUCCEEDED", outputs=self._import(component, executor["importer"], parameters))
        if "resolver" in executor:
            queries = executor["resolver"]["outputArtifactQueries"]
            found = {key: self._service.find(query["filter"], inputs) for key, query in queries.items()}
            return TaskRun(name, "SUCCEEDED", outputs=found)
        return self._run_container(name, task, component, executor["container"], inputs, parameters)

    def _artifacts(self, source: Json) -> list[Json]:
        producer = source["taskOutputArtifact"]
        return self._tasks[producer["producerTask"]].outputs[producer["outputArtifactKey"]]

    def _parameters(self, task: Json) -> Json:
        values: Json = {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "taskFinalStatus" in source:
                status = self._final_status(source["taskFinalStatus"]["producerTask"])
                values[key] = status if self._service.is_kubeflow else json.dumps(status)
                continue
            value = source["runtimeValue"]["constant"]
            if isinstance(value, str):
                value = value.replace("{{$.pipeline_job_uuid}}", self._job_id)
            values[key] = value
        return values

    def _final_status(self, producer: str) -> Json:
        if self._service.is_kubeflow:
            state = {"SUCCEEDED": "COMPLETE"}.get(self._tasks[producer].state, self._tasks[producer].state)
            return {
                "state": state,
                "pipelineJobResourceName": f"a run of {self._job_id}",
                "pipelineTaskName": producer,
                "error": {},
            }
        job = f"projects/{PROJECT}/locations/here/pipelineJobs/{self._job_id}"
        status: Json = {
            "state": self._tasks[producer].state,
            "pipelineJobResourceName": job,
            "pipelineTaskName": producer,
        }
        failed = [run.name for run in self._tasks.values() if run.state == "FAILED" and run.name != producer]
        if failed:
            message = f"The DAG failed because some tasks failed. The failed tasks are: [{', '.join(failed)}]."
            status["error"] = {"code": 9, "message": message}
        return status

    def _import(self, component: Json, importer: Json, parameters: Json) -> dict[str, list[Json]]:
        uri = importer["artifactUri"]["constant"]
        assert "runtimeParameter" not in importer["artifactUri"], parameters
        (key,) = component["outputDefinitions"]["artifacts"]
        return {key: [self._service.artifact(importer["typeSchema"], uri, importer.get("metadata", {}))]}

    def _run_container(
        self, name: str, task: Json, component: Json, container: Json, inputs: dict[str, list[Json]], parameters: Json
    ) -> TaskRun:
        started = time.monotonic()
        executor_input, outputs = self._executor_input(name, component, inputs, parameters)
        hook = container.get("lifecycle", {}).get("preCacheCheck")
        if hook and not self._service.is_kubeflow:
            went_well, log = self._service.execute(f"{name}-driver", 1, _command(hook, executor_input))
            if not went_well:
                return TaskRun(name, "FAILED", 1, time.monotonic() - started, error=log)
            parameters |= self._take_over(executor_input, outputs)
        key = _cache_key(component, container, inputs, parameters)
        if task.get("cachingOptions", {}).get("enableCache") and (cached := self._service.cached(key)):
            return dataclasses.replace(cached, state="SKIPPED", attempts=0, seconds=time.monotonic() - started)
        run = TaskRun(name, "FAILED", parameters=parameters)
        policy = task.get("retryPolicy", {})
        delay_s = float(policy.get("backoffDuration", "0s")[:-1]) * _BACKOFF_SCALE
        for run.attempts in range(1, policy.get("maxRetryCount", 0) + 2):
            went_well, run.error = self._service.execute(name, run.attempts, _command(container, executor_input))
            if went_well:
                self._take_over(executor_input, outputs)
                run.state, run.outputs, run.error = "SUCCEEDED", outputs, ""
                for artifacts in outputs.values():
                    self._service.publish(*artifacts)
                self._service.remember(key, run)
                break
            time.sleep(delay_s)
            delay_s *= policy.get("backoffFactor", 1)
        run.seconds = time.monotonic() - started
        return run

    def _executor_input(
        self, name: str, component: Json, inputs: dict[str, list[Json]], parameters: Json
    ) -> tuple[Json, dict[str, list[Json]]]:
        """What a task is told, and the artifacts that it is to write."""
        directory = f"{self._root}/{PROJECT}/{self._job_id}/{name}_{abs(hash((self._job_id, name)))}"
        outputs = {
            key: [self._service.pending_artifact(spec["artifactType"], f"{directory}/{key}", spec.get("metadata", {}))]
            for key, spec in component.get("outputDefinitions", {}).get("artifacts", {}).items()
        }
        parameters_out = component.get("outputDefinitions", {}).get("parameters", {})
        told: Json = {
            "inputs": {
                "artifacts": {key: {"artifacts": artifacts} for key, artifacts in inputs.items()},
                "parameterValues": parameters,
            },
            "outputs": {
                "artifacts": {key: {"artifacts": artifacts} for key, artifacts in outputs.items()},
                "outputFile": f"{directory}/executor_output.json",
            },
        }
        if parameters_out:
            told["outputs"]["parameters"] = {key: {"outputFile": f"{directory}/{key}"} for key in parameters_out}
        return told, outputs

    def _take_over(self, executor_input: Json, outputs: dict[str, list[Json]]) -> Json:
        """Takes artifacts out of the executor's output file; returns its parameters."""
        written = self._service.read_json(executor_input["outputs"]["outputFile"])
        for key, artifacts in written.get("artifacts", {}).items():
            for artifact, changed in zip(outputs[key], artifacts["artifacts"], strict=True):
                assert changed["uri"] == artifact["uri"]
                artifact["metadata"] |= changed.get("metadata", {})
        parameters: Json = written.get("parameterValues", {})
        return parameters


def _command(container: Json, executor_input: Json) -> list[str]:
    """The command line, with its placeholders resolved; raises KeyError for one that is not known."""
    arguments = [*container["command"], *container.get("args", [])]
    told = json.dumps(executor_input)
    values = {
        "{{$}}": told,
        "{{$.json_escape[1]}}": json.dumps(told)[1:-1],  # as a part of a JSON string
        "{{$.pipeline_google_cloud_project_id}}": PROJECT,
        "{{$.pipeline_google_cloud_location}}": "here",
        "{{$.pipeline_service_account}}": "trainer@project.iam.gserviceaccount.com",
    }
    for key, output in executor_input["outputs"].get("parameters", {}).items():
        values[f"{{{{$.outputs.parameters['{key}'].output_file}}}}"] = output["outputFile"]
    for way in ("inputs", "outputs"):
        for key, found in executor_input[way]["artifacts"].items():
            values |= {f"{{{{$.{way}.artifacts['{key}'].uri}}}}": artifact["uri"] for artifact in found["artifacts"]}
    return [_RESOLVABLE.sub(lambda match: values[match[0]], argument) for argument in arguments]


def _cache_key(component: Json, container: Json, inputs: Mapping[str, list[Json]], parameters: Json) -> str:
    """https://cloud.google.com/vertex-ai/docs/pipelines/configure-caching"""
    names = {key: [artifact["name"] for artifact in artifacts] for key, artifacts in inputs.items()}
    content = [component, container["image"], container["command"], container.get("args", []), names, parameters]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _holds(condition: str, inputs: Mapping[str, list[Json]]) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(condition))
    values = {"artifacts": {key: {"artifacts": artifacts} for key, artifacts in inputs.items()}}
    return bool(program.evaluate({"inputs": json_to_cel(json.loads(json.dumps(values)))}))


def _ordered(tasks: Mapping[str, Json]) -> Iterator[str]:
    """Task names, each after those it depends on."""
    done: set[str] = set()
    while len(done) < len(tasks):
        ready = sorted(
            name for name, task in tasks.items() if name not in done and done.issuperset(task.get("dependentTasks", []))
        )
        assert ready, f"dependencies go round in circles or lead out of {sorted(set(tasks) - done)}"
        for name in ready:
            done.add(name)
            yield name
