"""Runs a compiled pipeline job on this machine as Vertex AI Pipelines would, which cannot be had here.

It reads nothing but the job's JSON. Each task is a process of its own, with exactly the container's command and
arguments, in an environment that it is given, or, where the container launches a custom job, one for each replica of
that; artifacts go under the job's root; outputs are what the executor's output file says. Drivers (preCacheCheck), the
cache, retries, importers, resolvers, conditions in CEL, the failure policy and exit handlers work as documented:
https://github.com/kubeflow/pipelines/blob/2.16.1/api/v2alpha1/pipeline_spec.proto
"""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from custom_job import Process, processes_of
from pipeline_dag import PROJECT, Dag, Json, TaskRun

_STORE = f"projects/{PROJECT}/locations/here/metadataStores/default"
_TIMEOUT_S = 300  # of one attempt, for each process that it starts
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.artifacts\['([^']+)'\]\.metadata\['([^']+)'\]\}\}")
_TERM = re.compile(
    r'(schema_title|state|name|metadata\.(?P<key>\w+)\.(?:number|string)_value)=(?P<value>"[^"]*"|[^ ]+)'
)


@dataclasses.dataclass
class JobRun:
    """What became of a job."""

    id: str
    state: str
    tasks: dict[str, TaskRun]

    def output(self, task: str, key: str) -> Json:
        """Returns the one artifact of a task's output."""
        (artifact,) = self.tasks[task].outputs[key]
        return artifact


class PipelineService:
    """The service. Keeps its metadata store and cache over jobs."""

    def __init__(
        self,
        environment: Mapping[str, str],
        logs: Path,
        read: Callable[[str], bytes | None],
        *,
        is_kubeflow: bool = False,
    ) -> None:
        """Makes a service.

        Args:
          environment: All that the containers' processes get; their PATH decides what `python` is.
          logs: Directory for a log per attempt of a task.
          read: Returns the content of an artifact store's file, None if there is none.
          is_kubeflow: Does what Kubeflow does otherwise: runs no drivers, and gives a final status as a structure, in
            the words of ML Metadata and without the error.
            https://github.com/kubeflow/pipelines/blob/2.16.1/backend/src/v2/driver/resolve.go
        """
        self.is_kubeflow = is_kubeflow
        self._environment = dict(environment)
        self._logs = logs
        self._read = read
        self._artifacts: list[Json] = []
        self._cache: dict[str, TaskRun] = {}
        self._numbers = itertools.count(1)
        self._preempt: dict[str, str] = {}

    def run(self, job: Json, preempt: Mapping[str, str] | None = None) -> JobRun:
        """Runs a job to its end.

        Args:
          job: The compiled job.
          preempt: Tasks whose first attempt is killed, as on a node that goes away, as soon as its log has this text.
        """
        self._preempt = dict(preempt or {})
        job_id = f"{job['pipelineSpec']['pipelineInfo']['name']}-{next(self._numbers)}"
        tasks: dict[str, TaskRun] = {}
        state = Dag(self, job, job_id, tasks).run(job["pipelineSpec"]["root"]["dag"]["tasks"])
        return JobRun(id=job_id, state=state, tasks=tasks)

    def artifact(self, schema: Json, uri: str, metadata: Json) -> Json:
        """Registers an artifact."""
        artifact = self.pending_artifact(schema, uri, metadata)
        self.publish(artifact)
        return artifact

    def pending_artifact(self, schema: Json, uri: str, metadata: Json) -> Json:
        """Makes an artifact that its task has yet to write; resolvers do not see it."""
        name = f"{_STORE}/artifacts/{next(self._numbers)}"
        return {"name": name, "type": schema, "uri": uri, "metadata": dict(metadata)}

    def publish(self, artifact: Json) -> None:
        """Makes an artifact live."""
        self._artifacts.append(artifact)

    def find(self, query: str, inputs: Mapping[str, list[Json]]) -> list[Json]:
        """Returns the newest live artifact that a resolver's filter matches, or none."""
        if any(not inputs[match[1]] for match in _PLACEHOLDER.finditer(query)):
            return []
        query = _PLACEHOLDER.sub(lambda match: str(inputs[match[1]][0]["metadata"][match[2]]), query)
        for artifact in reversed(self._artifacts):
            if all(self._matches(artifact, term) for term in query.split(" AND ")):
                return [artifact]
        return []

    def _matches(self, artifact: Json, term: str) -> bool:
        match = _TERM.fullmatch(term.strip())
        assert match, f"filter term {term!r}"
        value = match["value"].strip('"')
        if match["key"]:
            there = artifact["metadata"].get(match["key"])
            return there is not None and (there == float(value) if isinstance(there, int | float) else there == value)
        facts = {
            "schema_title": _title(artifact["type"]),
            "state": "LIVE",
            "name": artifact["name"],
        }
        return facts[match[1]] == value

    def cached(self, key: str) -> TaskRun | None:
        """Returns an earlier run of a task by its cache key."""
        return self._cache.get(key)

    def remember(self, key: str, run: TaskRun) -> None:
        """Makes a run available to the cache."""
        self._cache[key] = run

    def read_json(self, uri: str) -> Json:
        """Returns a JSON file of the artifact store, empty if it is not there."""
        content = self._read(uri)
        return json.loads(content) if content else {}

    def execute(self, name: str, attempt: int, command: list[str]) -> tuple[bool, str]:
        """Runs one attempt of a container; returns whether it went well, and the end of its log."""
        directory = self._logs / f"{next(self._numbers)}-{name}-{attempt}"
        text = self._preempt.pop(name, None)
        started: dict[Path, subprocess.Popen[bytes]] = {}
        try:
            for one in processes_of(command):
                log = directory / one.name / "log"
                started[log] = self._start(one, log)
            _wait(started, text)
        finally:
            for process in started.values():
                process.kill()  # nothing, if it has ended
        codes = {log: process.wait() for log, process in started.items()}
        worst = max(codes, key=lambda log: codes[log] > 0)  # a failure of its own, before one that was killed for it
        said = f"exit status {codes[worst]}: ...{worst.read_text(errors='replace')[-2000:]}"
        return set(codes.values()) == {0}, said

    def _start(self, one: Process, log: Path) -> "subprocess.Popen[bytes]":
        log.parent.mkdir(parents=True)
        with log.open("wb") as file:
            return subprocess.Popen(
                one.command,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={**self._environment, **one.environment},
            )


def _wait(started: Mapping[Path, "subprocess.Popen[bytes]"], text: str | None) -> None:
    """Returns when all have ended, one has failed, or a log has this text; raises TimeoutExpired if that takes long."""
    limit_s = _TIMEOUT_S * len(started)
    ends = time.monotonic() + limit_s
    while None in (codes := [process.poll() for process in started.values()]):
        if any(codes) or (text is not None and any(text in log.read_text(errors="replace") for log in started)):
            return
        if time.monotonic() > ends:
            raise subprocess.TimeoutExpired(str([process.args for process in started.values()]), limit_s)
        time.sleep(0.05)


def _title(schema: Json) -> str:
    title: str = schema.get("schemaTitle") or yaml.safe_load(schema["instanceSchema"])["title"]
    return title


def container_environment(venv: Path, home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a container that has this virtual environment first on its PATH, and nothing else."""
    return {
        "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **{name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ},
        **extra,
    }
