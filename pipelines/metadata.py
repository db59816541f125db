"""ML Metadata by plain calls by id, which work with every build and back end of it."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipelines.metadata_opening import open_store

OUTPUT_EVENTS = (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
# Type of the context that says whose a pipeline is; its name is the pipeline's.
_OWNER_TYPE = "tfx_qat.pipeline_owner"
_CACHED = mlmd.Execution.CACHED
_COMPLETE = mlmd.Execution.COMPLETE

Value = str | int | float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRecord:
    """One artifact.

    Attributes:
      id: Its id in the store.
      type: Name of its type, for example "Model".
      uri: Where its files are.
      properties: Its properties and custom properties.
    """

    id: int
    type: str
    uri: str
    properties: dict[str, Value]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExecutionRecord:
    """One execution of a component.

    Attributes:
      id: Its id in the store.
      component: Id of the component in its pipeline.
      cached: Whether outputs of an earlier execution were taken over.
      complete: Whether it succeeded.
      seconds: How long it took.
      started_s: When it began, in seconds since the epoch.
      outputs: Output artifacts by key.
    """

    id: int
    component: str
    cached: bool
    complete: bool
    seconds: float
    started_s: float
    outputs: dict[str, list[ArtifactRecord]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Whose a pipeline is.

    Attributes:
      root_id: What tells a root from all others, wherever it is moved.
      root: Where it was, with the name of the machine, to be shown.
    """

    root_id: str
    root: str


class MetadataStore:
    """One store, wherever it is kept."""

    def __init__(self, url: str, create: bool = False) -> None:
        """Opens the store.

        Args:
          url: Where it is; see pipelines/metadata_connection.py.
          create: Whether a missing SQLite file is made.

        Raises:
          ValueError: If it cannot be opened; says why.
        """
        self._url, self._store = url, open_store(url, create)

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return self._url

    @property
    def client(self) -> metadata_store.MetadataStore:
        """ML Metadata's own client, for what is read with many ids at once."""
        return self._store

    def last_run(self, pipeline: str) -> list[ExecutionRecord]:
        """Returns the executions of a pipeline's last run, in the order in which they began; empty without one."""
        _, executions = next(self.runs(pipeline), ("", []))
        return executions

    def runs(self, pipeline: str) -> Iterator[tuple[str, list[ExecutionRecord]]]:
        """Yields each run's id and executions, these in the order in which they began; the newest run first."""
        context = self._store.get_context_by_type_and_name("pipeline", pipeline)
        executions = self._store.get_executions_by_context(context.id) if context else []
        seen: set[int] = set()
        for newest in sorted((execution.id for execution in executions), reverse=True):
            if newest not in seen:
                contexts = self._store.get_contexts_by_execution(newest)
                run = next(context for context in contexts if context.type == "pipeline_run")
                of_run = self._store.get_executions_by_context(run.id)
                seen |= {execution.id for execution in of_run}
                yield run.name, self._execution_records(of_run)

    def inputs(self, execution: ExecutionRecord) -> dict[str, list[ArtifactRecord]]:
        """Returns the input artifacts of an execution, by key."""
        return self._artifacts_of(execution.id, outputs=False)

    def claim(self, pipeline: str, owner: Owner) -> Owner:
        """Gives a pipeline an owner in this store, for good; of several who try at once, one succeeds.

        TFX tells pipelines of a store apart by their names alone: caches, and what the last run was, go by it.

        Returns:
          Whose it is: another's, if that one came first.
        """
        type_id = self._store.put_context_type(mlmd.ContextType(name=_OWNER_TYPE))
        context = mlmd.Context(type_id=type_id, name=pipeline)
        for field in dataclasses.fields(owner):
            context.custom_properties[field.name].string_value = getattr(owner, field.name)
        try:
            self._store.put_contexts([context])
        except errors.AlreadyExistsError:
            context = self._store.get_context_by_type_and_name(_OWNER_TYPE, pipeline)
        found = {field.name: context.custom_properties[field.name].string_value for field in dataclasses.fields(Owner)}
        return Owner(**found)

    def end_abandoned_executions(self, pipeline: str) -> list[ExecutionRecord]:
        """Marks executions of a pipeline that are still said to run as failed; returns them.

        Only safe where no run of that pipeline is going on; those of others in the same store may.
        """
        context = self._store.get_context_by_type_and_name("pipeline", pipeline)
        executions = self._store.get_executions_by_context(context.id) if context else []
        abandoned = [e for e in executions if e.last_known_state == mlmd.Execution.RUNNING]
        records = self._execution_records(abandoned)
        for execution in abandoned:
            execution.last_known_state = mlmd.Execution.FAILED
        if abandoned:
            self._store.put_executions(abandoned)
        return records

    def _execution_records(self, executions: Iterable[Any]) -> list[ExecutionRecord]:
        records = []
        for execution in executions:
            contexts = self._store.get_contexts_by_execution(execution.id)
            nodes = [context.name for context in contexts if context.type == "node"]
            begun, ended = execution.create_time_since_epoch, execution.last_update_time_since_epoch
            records.append(
                ExecutionRecord(
                    id=execution.id,
                    component=nodes[0].rsplit(".", 1)[-1] if nodes else execution.type,
                    cached=execution.last_known_state == _CACHED,
                    complete=execution.last_known_state in (_CACHED, _COMPLETE),
                    seconds=(ended - begun) / 1000,
                    started_s=begun / 1000,
                    outputs=self._artifacts_of(execution.id, outputs=True),
                )
            )
        return sorted(records, key=lambda record: record.id)

    def _artifacts_of(self, execution_id: int, *, outputs: bool) -> dict[str, list[ArtifactRecord]]:
        events = self._store.get_events_by_execution_ids([execution_id])
        wanted = [event for event in events if (event.type in OUTPUT_EVENTS) == outputs]
        if not wanted:
            return {}
        ids = sorted({event.artifact_id for event in wanted})
        artifacts = {artifact.id: artifact for artifact in self._store.get_artifacts_by_id(ids)}
        by_key: dict[str, list[ArtifactRecord]] = collections.defaultdict(list)
        for event in wanted:
            key = next((step.key for step in event.path.steps if step.key), "")
            by_key[key].append(artifact_record(artifacts[event.artifact_id]))
        return dict(by_key)


def artifact_record(artifact: Any) -> ArtifactRecord:
    """Returns what is kept here of an artifact of ML Metadata."""
    return ArtifactRecord(id=artifact.id, type=artifact.type, uri=artifact.uri, properties=properties_of(artifact))


def properties_of(node: Any) -> dict[str, Value]:
    """Returns properties and custom properties of an artifact or execution of ML Metadata."""
    return {name: _value(value) for name, value in [*node.properties.items(), *node.custom_properties.items()]}


def _value(value: Any) -> Value:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "int_value", "double_value"):
        plain: Value = getattr(value, kind)
        return plain
    return str(getattr(value, kind)) if kind else ""
