"""ML Metadata by plain calls by id, which work with every build and back end of it."""

import collections
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

OUTPUT_EVENTS = (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
# https://www.sqlite.org/fileformat2.html#magic_header_string
_SQLITE_HEADER = b"SQLite format 3\0"
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


class MetadataStore:
    """One SQLite store."""

    def __init__(self, path: str) -> None:
        """Opens the store.

        Args:
          path: The SQLite file.

        Raises:
          ValueError: If there is no such SQLite file.
        """
        if not Path(path).is_file():
            raise ValueError(f"no ML Metadata at {path}; run a pipeline first, or pass --metadata")
        with Path(path).open("rb") as file:
            if file.read(len(_SQLITE_HEADER)) != _SQLITE_HEADER:
                raise ValueError(f"{path} is no SQLite file; pass --metadata with the one below a run's root")
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = path
        config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE
        self._store = metadata_store.MetadataStore(config)

    @property
    def client(self) -> metadata_store.MetadataStore:
        """ML Metadata's own client, for what is read with many ids at once."""
        return self._store

    def last_run(self, pipeline: str) -> list[ExecutionRecord]:
        """Returns the executions of a pipeline's last run, in the order in which they began; empty without one."""
        context = self._store.get_context_by_type_and_name("pipeline", pipeline)
        executions = self._store.get_executions_by_context(context.id) if context else []
        if not executions:
            return []
        newest = max(executions, key=lambda execution: execution.id)
        contexts = self._store.get_contexts_by_execution(newest.id)
        run = next(context for context in contexts if context.type == "pipeline_run")
        return self._execution_records(self._store.get_executions_by_context(run.id))

    def inputs(self, execution: ExecutionRecord) -> dict[str, list[ArtifactRecord]]:
        """Returns the input artifacts of an execution, by key."""
        return self._artifacts_of(execution.id, outputs=False)

    def end_abandoned_executions(self) -> list[ExecutionRecord]:
        """Marks executions that are still said to run as failed; returns them. Only safe where nothing runs."""
        abandoned = [e for e in self._store.get_executions() if e.last_known_state == mlmd.Execution.RUNNING]
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
