"""A store of the shape of real runs: one of two targets, replayed with other ids, hashes and places."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from infra.bench.recorded_run import RECORDING, Replay, Replayed, model_bytes, open_store
from pipelines.__main__ import main
from pipelines.lineage.find import find_model
from pipelines.lineage.graph import Graph
from pipelines.lineage.story import Lineage
from pipelines.lineage.trace import trace
from pipelines.metadata import MetadataStore

_RECORDED = json.loads(RECORDING.read_text())


class Store:
    """A store of replayed runs, with the files of the models that are named."""

    def __init__(self, directory: Path, url: str = "") -> None:
        """Begins with no run, in a SQLite file of the directory, or where a URL says."""
        directory.mkdir(exist_ok=True)
        self.path, self.root = directory / "metadata.sqlite", directory / "root"
        self.url = url or str(self.path)
        self.client = MetadataStore(url).client if url else open_store(self.path)
        self.run = Replay(self.client, _RECORDED, str(self.root)).run

    def artifact(self, run: Replayed, node: str, kind: str) -> mlmd.Artifact:
        """What a node gave in a run."""
        ids = [event.artifact_id for event in self.client.get_events_by_execution_ids([run.executions[node]])]
        (found,) = [one for one in self.client.get_artifacts_by_id(ids) if one.type == kind and f"/{node}/" in one.uri]
        return found

    def file(self, run: Replayed, target: str, place: Path | None = None) -> Path:
        """Writes the file that was compiled for a target, where the store says it is, or elsewhere."""
        model = self.artifact(run, compiler_of(target), "Model")
        facts = model.custom_properties
        (recorded,) = {
            one["customProperties"]["sha256"]["stringValue"]
            for one in _RECORDED["artifacts"]
            if one["type"] == "Model" and f"/{compiler_of(target)}/" in one["uri"]
        }
        content = model_bytes(run.run_id, recorded, facts["content_sha256"].string_value)
        assert hashlib.sha256(content).hexdigest() == facts["sha256"].string_value
        path = place or Path(model.uri) / "Format-Serving" / "tflite"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def lineage(self, what: object) -> Lineage:
        return trace(*find_model([Graph(MetadataStore(self.url))], str(what)))

    def cli(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["lineage", *map(str, arguments), "--metadata", self.url])


def compiler_of(target: str) -> str:
    """The id of the node that compiles for a target."""
    return "EdgeTPUCompiler-edge-tpu" if target == "edge_tpu" else f"TargetCompiler-{target}"


def changed(node: str, kind: str, **facts: Any) -> Callable[[str, mlmd.Artifact], None]:
    """Returns an edit of a replay that sets properties of what a node gives."""

    def edit(of: str, artifact: mlmd.Artifact) -> None:
        if of == node and artifact.type == kind:
            for name, value in facts.items():
                field = "string_value" if isinstance(value, str) else "int_value"
                setattr(artifact.custom_properties[name], field, value)

    return edit


class Counter:
    """Counts the calls of ML Metadata's client."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        original = metadata_store.MetadataStore._call

        def counted(client: Any, method: Any, request: Any, response: Any) -> None:
            self.calls += 1
            assert "filter_query" not in str(request)
            original(client, method, request, response)

        monkeypatch.setattr(metadata_store.MetadataStore, "_call", counted)
