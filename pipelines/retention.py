"""Garbage collection: removes files of artifacts and logs that nothing needs any more, and says so in ML Metadata.

Needed are the inputs and outputs of the last runs, and each pushed model with all that it was made from and what
judged it: its ancestry by the events of ML Metadata, to which a warm start adds the model that it began with. A model
is pushed as long as its version is in the push directory; the newest one that was pushed there counts always, as the
next run is held against it.

An artifact is marked first, then removed, then marked as deleted: TFX's cache and its Resolvers take none that is
marked, so a collection that is killed leaves nothing that is half there and in use, and the next one ends its work.
"""

import collections
import dataclasses
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.io import fileio

from components.latest_pointer import LATEST_FILE
from pipelines.config import PipelineConfig
from pipelines.metadata import OUTPUT_EVENTS
from pipelines.metadata_opening import is_there, open_store

_LOGGER = logging.getLogger(__name__)
_MARKED, _DELETED, _LIVE = mlmd.Artifact.MARKED_FOR_DELETION, mlmd.Artifact.DELETED, mlmd.Artifact.LIVE
# What TFX itself reads: https://github.com/tensorflow/tfx/blob/v1.16.0/tfx/types/artifact.py
_TFX_STATES = {_MARKED: "MARKED_FOR_DELETION", _DELETED: "deleted"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """Artifacts that nothing needs.

    Attributes:
      artifacts: Those of ML Metadata.
      directories: Where their files are, in the same order.
      logs: Of runs before the last ones.
      kept: How many artifacts are needed.
    """

    artifacts: list[Any]
    directories: list[Path]
    logs: list[Path]
    kept: int

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        below = (file for directory in self.directories for file in directory.rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in (*below, *self.logs))


class Retention:
    """What one pipeline of a store needs. Only for use where none of its runs is under way."""

    def __init__(self, config: PipelineConfig) -> None:
        """Opens the store.

        Raises:
          ValueError: If nothing has run yet.
        """
        if not is_there(config.metadata_url):
            raise ValueError(f"no ML Metadata at {config.metadata_url}; there is nothing to collect before a first run")
        self._config = config
        self._store = open_store(config.metadata_url)
        context = self._store.get_context_by_type_and_name("pipeline", config.name)
        self._executions = self._store.get_executions_by_context(context.id) if context else []
        artifacts = self._store.get_artifacts_by_context(context.id) if context else []
        self._artifacts = {artifact.id: artifact for artifact in artifacts}
        self._inputs: dict[int, set[int]] = collections.defaultdict(set)
        self._outputs: dict[int, set[int]] = collections.defaultdict(set)
        ids = [execution.id for execution in self._executions]
        for event in self._store.get_events_by_execution_ids(ids) if ids else []:
            side = self._outputs if event.type in OUTPUT_EVENTS else self._inputs
            side[event.execution_id].add(event.artifact_id)

    @property
    def unknown(self) -> str:
        """Says that the store has no run of the pipeline, as after it was renamed; "" if it has some."""
        if self._executions:
            return ""
        others = ", ".join(sorted(one.name for one in self._store.get_contexts_by_type("pipeline"))) or "none"
        return f"no pipeline {self._config.name!r} has run here, only {others}; collect a renamed one by its old name"

    def garbage(self, keep: int) -> Garbage:
        """Returns what neither a pushed model nor any of the last `keep` runs needs.

        Raises:
          ValueError: If a directory where models were pushed cannot be seen.
        """
        needed = self._of_last_runs(keep) | self._ancestry(self._pushed())
        root = Path(self._config.pipeline_root).absolute()
        found = [
            (artifact, Path(artifact.uri))
            for artifact in self._artifacts.values()
            if artifact.id not in needed and artifact.state in (_LIVE, _MARKED) and _is_below(Path(artifact.uri), root)
        ]
        return Garbage(
            artifacts=[artifact for artifact, _ in found],
            directories=[directory for _, directory in found],
            logs=[*_old_logs(Path(self._config.logs_dir), keep), *_old_logs(Path(self._config.spans_dir), keep)],
            kept=len(needed),
        )

    def remove(self, garbage: Garbage) -> None:
        """Removes the files of artifacts, and logs."""
        self._mark(garbage.artifacts, _MARKED)
        for directory in garbage.directories:
            if directory.is_dir():
                shutil.rmtree(directory)
        self._mark(garbage.artifacts, _DELETED)
        for log in garbage.logs:
            log.unlink(missing_ok=True)
        _LOGGER.info("removed the files of %d artifacts", len(garbage.artifacts))

    def _mark(self, artifacts: Iterable[Any], state: int) -> None:
        marked = list(artifacts)
        for artifact in marked:
            artifact.state = state
            artifact.custom_properties["state"].string_value = _TFX_STATES[state]
        if marked:
            self._store.put_artifacts(marked)

    def _of_last_runs(self, keep: int) -> set[int]:
        by_run = collections.defaultdict(list)
        for execution in self._executions:
            contexts = self._store.get_contexts_by_execution(execution.id)
            by_run[next((one.id for one in contexts if one.type == "pipeline_run"), 0)].append(execution.id)
        runs = sorted(by_run.values(), key=max)
        last = [execution for run in runs[len(runs) - min(keep, len(runs)) :] for execution in run]
        return {artifact for execution in last for artifact in self._inputs[execution] | self._outputs[execution]}

    def _pushed(self) -> set[int]:
        by_directory: dict[str, dict[int, str]] = collections.defaultdict(dict)
        for artifact in self._artifacts.values():
            if artifact.type == "PushedModel" and artifact.custom_properties["pushed"].int_value == 1:
                directory, version = os.path.split(artifact.custom_properties["pushed_destination"].string_value)
                by_directory[directory][artifact.id] = version
        needed = set()
        for directory, versions in by_directory.items():
            there = _versions(directory)
            needed |= {id_ for id_, version in versions.items() if version in there} | {max(versions)}
        return needed

    def _ancestry(self, artifacts: set[int]) -> set[int]:
        """The artifacts, and all that executions which had them among their outputs had as inputs and outputs."""
        needed: set[int] = set()
        left = set(artifacts)
        makers = collections.defaultdict(set)
        for execution, outputs in self._outputs.items():
            for artifact in outputs:
                makers[artifact].add(execution)
        while left:
            artifact = left.pop()
            needed.add(artifact)
            for execution in makers[artifact]:
                left |= (self._inputs[execution] | self._outputs[execution]) - needed
        return needed


def _versions(directory: str) -> set[str]:
    """The versions in a directory where models were pushed, which a disk that is not mounted must not seem to lack."""
    if not fileio.exists(os.path.join(directory, LATEST_FILE)):
        raise ValueError(
            f"{directory}: models were pushed there, and now there is no file {LATEST_FILE!r}; make it reachable, or an"
            " empty file of that name if all that was pushed there is gone for good; nothing was removed"
        )
    return {name.rstrip("/") for name in fileio.listdir(directory)}


def _old_logs(directory: Path, keep: int) -> list[Path]:
    """All but so many of the newest logs in a directory."""
    return sorted(directory.glob("*.log"), key=lambda log: (log.stat().st_mtime_ns, log.name))[:-keep]


def _is_below(directory: Path, root: Path) -> bool:
    absolute = directory.absolute()
    return root in absolute.parents and ".." not in absolute.parts
