"""A part of ML Metadata as a graph, which grows by what is asked of it."""

import dataclasses
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipelines.metadata import OUTPUT_EVENTS, ArtifactRecord, MetadataStore, Value, artifact_record, properties_of

# What a Resolver found is recorded as its output, though it neither made the artifact nor took it from the cache.
_FOUND = mlmd.Event.INTERNAL_OUTPUT

# https://www.sqlite.org/limits.html#max_variable_number (32,766 since 3.32), and messages of gRPC have limits too.
_IDS_AT_ONCE = 5_000

Run = tuple[str, str]
"""The names of a pipeline and of one of its runs."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """One execution of a component.

    Attributes:
      id: Its id in the store.
      component: Class of the component.
      cached: Whether it took the outputs of an earlier one.
      succeeded: Whether it did, or took them.
      running: Whether nobody said that it ended.
      started_s: When it began, in seconds since the epoch.
      seconds: How long it took.
      properties: What it was told, and what it noted.
    """

    id: int
    component: str
    cached: bool
    succeeded: bool
    running: bool
    started_s: float
    seconds: float
    properties: Mapping[str, Value]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """That an execution took or gave an artifact, under a key."""

    execution: int
    artifact: int
    key: str
    is_output: bool


class Graph:
    """What was read of a store so far. Nothing is read twice.

    Attributes:
      url: Where the store is.
      artifacts: By their ids.
      executions: By theirs.
    """

    def __init__(self, store: MetadataStore) -> None:
        self.url = store.url
        self._client = store.client
        self.artifacts: dict[int, ArtifactRecord] = {}
        self.executions: dict[int, Execution] = {}
        self._of_artifact: dict[int, list[Edge]] = {}
        self._of_execution: dict[int, list[Edge]] = {}
        self._runs: dict[int, Run] = {}

    def of_type(self, name: str) -> list[ArtifactRecord]:
        """Reads and returns all artifacts of a type, the oldest first. It takes as long as there are many."""
        return self._keep(self._client.get_artifacts_by_type(name))

    def of_run(self, run_id: str) -> list[ArtifactRecord]:
        """Reads and returns all artifacts that a run gave or took, the oldest first; none if there is no such run."""
        context = self._client.get_context_by_type_and_name("pipeline_run", run_id) if run_id else None
        return self._keep(self._client.get_artifacts_by_context(context.id)) if context else []

    def of_pipeline(self, name: str) -> list[Execution]:
        """Reads and returns all executions of a pipeline, the oldest first; none if there is no such pipeline."""
        context = self._client.get_context_by_type_and_name("pipeline", name)
        read = self._client.get_executions_by_context(context.id) if context else ()
        executions = sorted(map(_execution, read), key=lambda execution: execution.id)
        self.executions |= {execution.id: execution for execution in executions}
        return executions

    def read_artifacts(self, ids: Iterable[int]) -> None:
        """Reads artifacts."""
        for some in _batches(ids, self.artifacts):
            self._keep(self._client.get_artifacts_by_id(some))

    def edges_of_artifacts(self, ids: Collection[int]) -> list[Edge]:
        """Returns who made and took artifacts, in the order in which that happened."""
        for some in _batches(ids, self._of_artifact):
            self._of_artifact |= {one: [] for one in some}
            for edge in _edges(self._client.get_events_by_artifact_ids(some)):
                self._of_artifact[edge.artifact].append(edge)
        edges = [edge for one in ids for edge in self._of_artifact[one]]
        return sorted(edges, key=lambda edge: edge.execution)

    def edges_of_executions(self, ids: Collection[int]) -> list[Edge]:
        """Returns what executions took and gave; the artifacts are read, too."""
        for some in _batches(ids, self._of_execution):
            self._of_execution |= {one: [] for one in some}
            for edge in _edges(self._client.get_events_by_execution_ids(some)):
                self._of_execution[edge.execution].append(edge)
        edges = [edge for one in ids for edge in self._of_execution[one]]
        self.read_artifacts(edge.artifact for edge in edges)
        return edges

    def read_executions(self, ids: Iterable[int]) -> None:
        """Reads executions."""
        for some in _batches(ids, self.executions):
            for execution in self._client.get_executions_by_id(some):
                self.executions[execution.id] = _execution(execution)

    def given_by_run(self, artifacts: Collection[int], run: Run) -> set[int]:
        """Returns those artifacts that a run made or took from the cache; `runs` must have read the run."""
        edges = self.edges_of_artifacts(artifacts)
        return {edge.artifact for edge in edges if edge.is_output and self._runs.get(edge.execution) == run}

    def makers(self, artifacts: Collection[int]) -> dict[int, int]:
        """Returns the execution that made each artifact; later ones took it from the cache."""
        made: dict[int, int] = {}
        for edge in self.edges_of_artifacts(artifacts):
            if edge.is_output:
                made.setdefault(edge.artifact, edge.execution)
        self.read_executions(made.values())
        return made

    def takers(self, artifacts: Collection[int], keys: Collection[str]) -> list[int]:
        """Returns the executions that took one of the artifacts under one of the keys, and did something with it."""
        edges = self.edges_of_artifacts(artifacts)
        took = list(dict.fromkeys(edge.execution for edge in edges if not edge.is_output and edge.key in keys))
        self.read_executions(took)
        return [one for one in took if self.executions[one].succeeded and not self.executions[one].cached]

    def inputs(self, execution: int) -> dict[str, list[int]]:
        """Returns the ids of what an execution took, by key."""
        return self._by_key(execution, is_output=False)

    def outputs(self, execution: int) -> dict[str, list[int]]:
        """Returns the ids of what an execution gave, by key."""
        return self._by_key(execution, is_output=True)

    def ancestors(self, artifact: int, without: Collection[str]) -> list[int]:
        """Returns an artifact and all that it was made of, the nearest first; level by level, so in few calls.

        Args:
          artifact: Where to begin.
          without: Keys of inputs that are given, but not what they were made of.
        """
        level, found, followed = [artifact], {artifact: None}, set()
        self.read_artifacts(level)
        while level:
            followed |= set(level)
            executions = list(dict.fromkeys(self.makers(level).values()))
            taken = [edge for edge in self.edges_of_executions(executions) if not edge.is_output]
            found |= {edge.artifact: None for edge in taken}
            onward = dict.fromkeys(edge.artifact for edge in taken if edge.key not in without)
            level = [one for one in onward if one not in followed]
        return list(found)

    def runs(self, executions: Iterable[int]) -> dict[int, Run]:
        """Returns which run each execution belongs to: one look for each run, however many executions it has."""
        wanted = list(executions)
        for one in wanted:
            if one in self._runs:
                continue
            contexts = self._client.get_contexts_by_execution(one)
            run = next((context for context in contexts if context.type == "pipeline_run"), None)
            name = next((context.name for context in contexts if context.type == "pipeline"), "")
            self._runs[one] = (name, run.name if run else "")
            for execution in self._client.get_executions_by_context(run.id) if run else ():
                self.executions[execution.id] = _execution(execution)
                self._runs[execution.id] = (name, run.name)
        return {one: self._runs[one] for one in wanted}

    def _by_key(self, execution: int, is_output: bool) -> dict[str, list[int]]:
        by_key: dict[str, list[int]] = {}
        for edge in self.edges_of_executions([execution]):
            if edge.is_output is is_output:
                by_key.setdefault(edge.key, []).append(edge.artifact)
        return by_key

    def _keep(self, artifacts: Iterable[Any]) -> list[ArtifactRecord]:
        read = sorted(map(artifact_record, artifacts), key=lambda record: record.id)
        self.artifacts |= {record.id: record for record in read}
        return read


def _batches(ids: Iterable[int], known: Container[int]) -> Iterator[list[int]]:
    """Those ids that are not known yet, each once."""
    ordered = sorted({one for one in ids if one not in known})
    for start in range(0, len(ordered), _IDS_AT_ONCE):
        yield ordered[start : start + _IDS_AT_ONCE]


def _edges(events: Iterable[Any]) -> Iterator[Edge]:
    for event in events:
        if event.type != _FOUND:
            yield Edge(
                execution=event.execution_id,
                artifact=event.artifact_id,
                key=next((step.key for step in event.path.steps if step.key), ""),
                is_output=event.type in OUTPUT_EVENTS,
            )


def _execution(execution: Any) -> Execution:
    begun, ended, state = (
        execution.create_time_since_epoch,
        execution.last_update_time_since_epoch,
        execution.last_known_state,
    )
    return Execution(
        id=execution.id,
        component=execution.type.rsplit(".", 1)[-1],
        cached=state == mlmd.Execution.CACHED,
        succeeded=state in (mlmd.Execution.CACHED, mlmd.Execution.COMPLETE),
        running=state in (mlmd.Execution.NEW, mlmd.Execution.RUNNING),
        started_s=begun / 1000,
        seconds=(ended - begun) / 1000,
        properties=properties_of(execution),
    )
