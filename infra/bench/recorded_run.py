"""One real run as ML Metadata has it, and more of its shape with other ids, hashes and places.

The recording is what a run of the devices pipeline left: two targets, 22 artifacts. Made by

    .venv/bin/python -m infra.bench.recorded_run runs/devices/metadata.sqlite infra/bench/recorded_run.json
"""

import dataclasses
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

RECORDING = Path(__file__).with_suffix(".json")
Edit = Callable[[str, mlmd.Artifact], None]
"""Changes an artifact, given the id of the node that makes it, before it is written."""

_ROOT = "/recorded/"  # in place of the root that was run in
_OUTPUT = mlmd.Event.OUTPUT


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """A run that was written.

    Attributes:
      run_id: Its id.
      artifacts: Ids of its artifacts, by those of the recording.
      executions: Ids of its executions, by node.
      versions: The versions that were latest behind it, each with its file's sha256, by the pusher's node.
    """

    run_id: str
    artifacts: Mapping[int, int]
    executions: Mapping[str, int]
    versions: Mapping[str, tuple[str, str]]


def open_store(path: Path) -> metadata_store.MetadataStore:
    """Opens or makes a SQLite file of ML Metadata."""
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return metadata_store.MetadataStore(config)


def record(store: metadata_store.MetadataStore, root: str) -> dict[str, Any]:
    """Returns the first run of a store: its types, executions with their contexts, events and artifacts.

    Args:
      store: Where it is.
      root: Its root, which is left out of all paths.
    """
    run = store.get_contexts_by_type("pipeline_run")[0]
    executions = sorted(store.get_executions_by_context(run.id), key=lambda one: one.id)
    events = store.get_events_by_execution_ids([one.id for one in executions])
    artifacts = store.get_artifacts_by_id(sorted({one.artifact_id for one in events}))
    types = [*store.get_artifact_types(), *store.get_execution_types(), *store.get_context_types()]
    recorded = {
        "run_id": run.name,
        "types": [{"kind": type(one).__name__, **_dict(one)} for one in types],
        "executions": [
            {**_dict(one), "contexts": [_dict(context) for context in store.get_contexts_by_execution(one.id)]}
            for one in executions
        ],
        "events": [_dict(one) for one in events],
        "artifacts": [_dict(one) for one in artifacts],
    }
    text = json.dumps(recorded, indent=1, sort_keys=True)
    replaced: dict[str, Any] = json.loads(text.replace(f"{root.rstrip('/')}/", _ROOT))
    return replaced


def model_bytes(run_id: str, recorded_sha256: str, content_sha256: str) -> bytes:
    """Returns what the file of a replayed model is: nothing but what a .tflite file says of itself, behind zeros."""
    fields = {
        "content_sha256": content_sha256,
        "labels": {},
        "model_uuid": f"00000000-0000-5000-8000-{content_sha256[:12]}",
        "parent_sha256": recorded_sha256,
        "run_id": run_id,
        "scheme": "",
        "version": 1,
        "versions": {},
    }
    return bytes(64) + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


class Replay:
    """Writes runs of the recorded shape into a store, each in three calls."""

    def __init__(self, store: metadata_store.MetadataStore, recorded: Mapping[str, Any], root: str) -> None:
        """Writes the types.

        Args:
          store: Where to.
          recorded: What `record` returned.
          root: Below it are the roots of the runs, and `pushed`.
        """
        self._store, self._recorded, self._root = store, recorded, root
        self._types = self._write_types()
        self._shared: dict[str, int] = {}
        self._artifacts = {int(one["id"]): self._parsed(mlmd.Artifact(), one) for one in recorded["artifacts"]}
        self._executions = [self._parsed(mlmd.Execution(), one) for one in recorded["executions"]]
        self._nodes = [_named(one["contexts"], "node").partition(".")[2] for one in recorded["executions"]]
        self._pipeline = _named(recorded["executions"][0]["contexts"], "pipeline")
        place = {one["id"]: number for number, one in enumerate(recorded["executions"])}
        self._events = [(place[one["executionId"]], int(one["artifactId"]), _event(one)) for one in recorded["events"]]

    def run(
        self,
        run_id: str,
        *,
        before: Replayed | None = None,
        cached: Collection[str] = (),
        edit: Edit = lambda node, artifact: None,
    ) -> Replayed:
        """Writes a run.

        Args:
          run_id: Its id.
          before: The run before it.
          cached: Nodes whose outputs are taken from that one.
          edit: Changes artifacts before they are written.
        """
        renames = self._renames(run_id)
        versions = dict(before.versions) if before else {}
        executions = [_copy(one, renames) for one in self._executions]
        makers = {artifact: self._nodes[place] for place, artifact, event in self._events if event.type == _OUTPUT}
        new: dict[int, mlmd.Artifact] = {}
        for artifact, node in makers.items():
            if node not in cached:
                new[artifact] = _copy(self._artifacts[artifact], renames)
                _push(node, new[artifact], versions)
                edit(node, new[artifact])
        for node, execution in zip(self._nodes, executions, strict=True):
            execution.last_known_state = mlmd.Execution.CACHED if node in cached else mlmd.Execution.COMPLETE
        order = {artifact: number for number, artifact in enumerate(new)}
        edges = []
        for place, artifact, recorded in self._events:
            event = mlmd.Event()
            event.CopyFrom(recorded)
            if artifact not in new:
                event.artifact_id = before.artifacts[artifact]
            edges.append((place, order.get(artifact), event))
        contexts = [self._context("pipeline", self._pipeline), self._context("pipeline_run", run_id)]
        made, artifact_ids, context_ids = self._store.put_lineage_subgraph(
            executions, list(new.values()), contexts, edges, reuse_context_if_already_exist=True
        )
        ids = {old: artifact_ids[number] for old, number in order.items()}
        ids |= {old: before.artifacts[old] for old in makers if old not in ids}
        of_cache = [ids[artifact] for artifact in makers if artifact not in new]
        self._associate(run_id, made, {one: ids[one] for one in makers}, makers, context_ids, of_cache)
        return Replayed(
            run_id=run_id, artifacts=ids, executions=dict(zip(self._nodes, made, strict=True)), versions=versions
        )

    def _associate(
        self,
        run_id: str,
        executions: list[int],
        artifacts: Mapping[int, int],
        makers: Mapping[int, str],
        of_run: list[int],
        of_cache: list[int],
    ) -> None:
        """Puts executions and artifacts into the contexts of their nodes and cache keys, cached ones into the run's."""
        own = self._own_contexts(run_id)
        pairs = [(node, execution) for node, execution in zip(self._nodes, executions, strict=True)]
        attributions = [(artifacts[one], context) for one, node in makers.items() for context in own[node]]
        attributions += [(one, context) for one in of_cache for context in of_run]
        self._store.put_attributions_and_associations(
            [mlmd.Attribution(artifact_id=artifact, context_id=context) for artifact, context in set(attributions)],
            [mlmd.Association(execution_id=one, context_id=context) for node, one in pairs for context in own[node]],
        )

    def _own_contexts(self, run_id: str) -> dict[str, list[int]]:
        """The contexts of each node: its own, which all runs share, and one for its cache key."""
        if not self._shared:
            made = self._store.put_contexts([self._context("node", f"{self._pipeline}.{one}") for one in self._nodes])
            self._shared = dict(zip(self._nodes, made, strict=True))
        keys = [hashlib.sha256(f"{run_id} {node}".encode()).hexdigest() for node in self._nodes]
        made = self._store.put_contexts([self._context("execution_cache", key) for key in keys])
        return {node: [self._shared[node], key] for node, key in zip(self._nodes, made, strict=True)}

    def _context(self, kind: str, name: str) -> mlmd.Context:
        return mlmd.Context(type_id=self._types[kind], name=name)

    def _write_types(self) -> dict[str, int]:
        put = {
            "ArtifactType": (mlmd.ArtifactType, self._store.put_artifact_type),
            "ExecutionType": (mlmd.ExecutionType, self._store.put_execution_type),
            "ContextType": (mlmd.ContextType, self._store.put_context_type),
        }
        ids = {}
        for one in self._recorded["types"]:
            make, write = put[one["kind"]]
            fields = {name: value for name, value in one.items() if name not in ("kind", "id")}
            ids[one["name"]] = write(json_format.ParseDict(fields, make()), can_add_fields=True)
        return ids

    def _parsed(self, message: Any, fields: Mapping[str, Any]) -> Any:
        left_out = ("id", "name", "contexts", "typeId", "createTimeSinceEpoch", "lastUpdateTimeSinceEpoch")
        json_format.ParseDict({name: value for name, value in fields.items() if name not in left_out}, message)
        message.type_id = self._types[message.type]
        return message

    def _renames(self, run_id: str) -> dict[str, str]:
        """What is called otherwise in another run: its id, its root and the hashes of its models."""
        renames = {self._recorded["run_id"]: run_id, _ROOT: f"{self._root}/{run_id}/"}
        for artifact in self._artifacts.values():
            facts = artifact.custom_properties
            if artifact.type == "Model" and "sha256" in facts:
                old = facts["sha256"].string_value
                content = facts["content_sha256"].string_value if "content_sha256" in facts else old
                renames[old] = hashlib.sha256(model_bytes(run_id, old, content)).hexdigest()
        return renames


def _named(contexts: list[dict[str, Any]], kind: str) -> str:
    return next(str(one["name"]) for one in contexts if one["type"] == kind)


def _event(fields: Mapping[str, Any]) -> mlmd.Event:
    event = mlmd.Event()
    json_format.ParseDict({"type": fields["type"], "path": fields["path"]}, event)
    return event


def _copy(message: Any, renames: Mapping[str, str]) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    if isinstance(copy, mlmd.Artifact):
        copy.uri = _renamed(copy.uri, renames)
    for value in [*copy.properties.values(), *copy.custom_properties.values()]:
        if value.WhichOneof("value") == "string_value":
            value.string_value = _renamed(value.string_value, renames)
    return copy


def _renamed(text: str, renames: Mapping[str, str]) -> str:
    for old, new in renames.items():
        text = text.replace(old, new)
    return text


def _push(node: str, artifact: mlmd.Artifact, versions: dict[str, tuple[str, str]]) -> None:
    """Gives a push its version, time and place, and lets it replace the one before."""
    if artifact.type != "PushedModel":
        return
    facts = artifact.custom_properties
    sha256 = facts["sha256"].string_value
    home = re.sub(r"/[^/]*/pushed", "/pushed", os.path.dirname(facts["pushed_destination"].string_value))
    replaced = versions.get(node, ("", ""))
    versions[node] = (sha256[:12], sha256)
    facts["pushed_version"].string_value = sha256[:12]
    facts["pushed_at"].string_value = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts["pushed_destination"].string_value = f"{home}/{sha256[:12]}"
    facts["replaced_version"].string_value, facts["replaced_sha256"].string_value = replaced


def _dict(message: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json_format.MessageToDict(message)
    return fields


if __name__ == "__main__":
    source, destination = map(Path, sys.argv[1:])
    found = record(open_store(source), str(source.resolve().parent))
    destination.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
