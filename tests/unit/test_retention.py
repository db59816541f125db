"""Garbage collection in a store that holds what runs of a small pipeline leave: examples -> model -> pushed model."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipelines.__main__ import main
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.retention import Retention

_STRING, _INT = mlmd.STRING, mlmd.INT


class _Store:
    """Writes runs into a store and under a root, as TFX does."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        Path(config.root).mkdir(parents=True)
        connection = mlmd.ConnectionConfig()
        connection.sqlite.filename_uri = config.metadata_url
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = metadata_store.MetadataStore(connection)
        self.pipeline = self._context("pipeline", config.name)

    def _context(self, kind: str, name: str) -> int:
        type_id = self.store.put_context_type(mlmd.ContextType(name=kind))
        (context_id,) = self.store.put_contexts([mlmd.Context(type_id=type_id, name=name)])
        return int(context_id)

    def execution(self, run: str, component: str, inputs: list[int], kinds: list[str], **facts: Any) -> list[int]:
        """Adds an execution with one output of each type; returns their ids."""
        execution = mlmd.Execution(
            type_id=self.store.put_execution_type(mlmd.ExecutionType(name=component)),
            last_known_state=mlmd.Execution.COMPLETE,
        )
        outputs = []
        for kind in kinds:
            uri = Path(self.config.pipeline_root).absolute() / component / kind / run
            uri.mkdir(parents=True)
            (uri / "file").write_bytes(b"12345")
            artifact = mlmd.Artifact(
                type_id=self.store.put_artifact_type(mlmd.ArtifactType(name=kind)),
                uri=str(uri),
                state=mlmd.Artifact.LIVE,
            )
            for name, value in facts.items():
                field = "int_value" if isinstance(value, int) else "string_value"
                setattr(artifact.custom_properties[name], field, value)
            outputs.append((artifact, mlmd.Event(type=mlmd.Event.OUTPUT)))
        taken = [
            (artifact, mlmd.Event(type=mlmd.Event.INPUT))
            for artifact in (self.store.get_artifacts_by_id(inputs) if inputs else [])
        ]
        run_type = self.store.put_context_type(mlmd.ContextType(name="pipeline_run"))
        contexts = [
            *self.store.get_contexts_by_id([self.pipeline]),
            self.store.get_context_by_type_and_name("pipeline_run", run) or mlmd.Context(type_id=run_type, name=run),
        ]
        _, ids, _ = self.store.put_execution(execution, [*taken, *outputs], contexts)
        return [int(one) for one in ids[len(taken) :]]

    def run(self, name: str, pushed: bool, warm_start: list[int]) -> list[int]:
        """Adds a run; returns its model."""
        examples = self.execution(name, "ExampleGen", [], ["Examples"])
        self.execution(name, "StatisticsGen", examples, ["ExampleStatistics"])
        model = self.execution(name, "Trainer", [*examples, *warm_start], ["Model", "ModelRun"])[:1]
        destination = Path(self.config.push_uri) / name
        if pushed:
            destination.mkdir(parents=True)
            (destination.parent / "latest").write_text(name)
        facts = {"pushed": int(pushed), "pushed_destination": str(destination) if pushed else ""}
        self.execution(name, "Pusher", model, ["PushedModel"], **facts)
        return model

    def there(self) -> set[str]:
        """The directories of artifacts that are there, as type/run."""
        files = Path(self.config.pipeline_root).rglob("file")
        return {f"{file.parts[-3]}/{file.parts[-2]}" for file in files}


_ALL = ("Examples", "ExampleStatistics", "Model", "ModelRun", "PushedModel")
_ANCESTRY = ("Examples", "Model", "ModelRun", "PushedModel")


def _of(kinds: tuple[str, ...], *runs: str) -> set[str]:
    return {f"{kind}/{run}" for run in runs for kind in kinds}


@pytest.fixture
def store(tmp_path: Path) -> _Store:
    """Five runs: a was pushed, b refused, c pushed with a warm start from a, d and e refused."""
    store = _Store(dataclasses.replace(load_config("digits"), root=str(tmp_path / "root")))
    first = store.run("a", True, [])
    store.run("b", False, [])
    store.run("c", True, first)
    store.run("d", False, [])
    store.run("e", False, [])
    return store


def _collect(config: PipelineConfig, keep: int) -> None:
    retention = Retention(config)
    retention.remove(retention.garbage(keep))


def test_gc_keeps_the_ancestry_of_pushed_models_and_the_last_runs(store: _Store) -> None:
    _collect(store.config, 1)
    assert store.there() == _of(_ANCESTRY, "a", "c") | _of(_ALL, "e")
    states = {artifact.uri.split("/")[-1] + artifact.type: artifact.state for artifact in store.store.get_artifacts()}
    assert states["bModel"] == mlmd.Artifact.DELETED
    assert states["aModel"] == mlmd.Artifact.LIVE
    assert not Retention(store.config).garbage(1).artifacts


def test_gc_keeps_a_model_from_which_a_pushed_one_began_though_its_own_version_is_gone(store: _Store) -> None:
    shutil.rmtree(Path(store.config.push_uri) / "a")
    _collect(store.config, 1)
    expected = _of(("Examples", "Model", "ModelRun"), "a") | _of(_ANCESTRY, "c") | _of(_ALL, "e")
    assert store.there() == expected


def test_gc_keeps_the_newest_pushed_model_though_its_version_is_gone(store: _Store) -> None:
    for version in ("a", "c"):
        shutil.rmtree(Path(store.config.push_uri) / version)
    _collect(store.config, 1)
    assert _of(_ANCESTRY, "c") <= store.there()
    assert "PushedModel/a" not in store.there()


def test_gc_removes_nothing_when_the_push_directory_cannot_be_seen(store: _Store) -> None:
    Path(store.config.push_uri).rename(f"{store.config.push_uri}.unmounted")
    arguments = ["gc", "digits", "--root", store.config.root, "--keep", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "models were pushed there, and now there is no file 'latest'" in " ".join(result.output.split())
    assert store.there() == _of(_ALL, *"abcde")


def test_gc_keeps_the_newest_model_of_every_push_directory(store: _Store) -> None:
    config = dataclasses.replace(store.config, push_dir=str(Path(store.config.root) / "elsewhere"))
    store.config = config
    store.run("f", True, [])
    shutil.rmtree(Path(config.push_uri) / "f")
    shutil.rmtree(Path(config.root) / "pushed" / "c")
    _collect(config, 1)
    assert _of(_ANCESTRY, "c", "f") <= store.there()


def test_gc_removes_nothing_when_all_runs_are_kept(store: _Store) -> None:
    _collect(store.config, 5)
    assert store.there() == _of(_ALL, *"abcde")


def test_gc_ends_its_work_when_it_was_killed_in_the_middle(store: _Store, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[Path] = []

    def rmtree(directory: Path) -> None:
        if len(removed) == 2:
            (directory / "file").unlink()
            raise KeyboardInterrupt
        removed.append(directory)
        real(directory)

    real = shutil.rmtree
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(KeyboardInterrupt):
            _collect(store.config, 1)
    garbage = {artifact.id for artifact in store.store.get_artifacts() if artifact.state != mlmd.Artifact.LIVE}
    assert len(garbage) == 5 * 2 + 2  # all of b and d, and the statistics of a and c; none of them can be taken now
    _collect(store.config, 1)
    assert store.there() == _of(_ANCESTRY, "a", "c") | _of(_ALL, "e")


def test_gc_touches_nothing_outside_of_the_root_of_artifacts(store: _Store, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (artifact,) = store.store.get_artifacts_by_id([6])
    artifact.uri = str(outside)
    store.store.put_artifacts([artifact])
    _collect(store.config, 1)
    assert outside.is_dir()


def test_gc_shows_and_removes_nothing_when_it_is_dry(store: _Store) -> None:
    arguments = ["gc", "digits", "--root", store.config.root, "--keep", "1"]
    dry = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert "12 artifacts, 60 bytes, would be removed; 13 are needed" in dry.output
    assert len(dry.output.splitlines()) == 12 + 1
    assert store.there() == _of(_ALL, *"abcde")
    assert "12 artifacts, 60 bytes, removed; 13 are needed" in CliRunner().invoke(main, arguments).output
    assert len(store.there()) == 13


def test_gc_says_so_when_the_store_knows_no_pipeline_of_that_name(store: _Store) -> None:
    assert Retention(store.config).unknown == ""
    renamed = Retention(dataclasses.replace(store.config, name="numbers"))
    assert renamed.unknown.startswith("no pipeline 'numbers' has run here, only digits; ")
    assert not renamed.garbage(1).artifacts


def test_gc_keeps_the_newest_logs(store: _Store) -> None:
    directories = [Path(store.config.logs_dir), Path(store.config.spans_dir)]
    for directory in directories:
        directory.mkdir(parents=True)
        for age in range(3):
            (directory / f"{age}.log").write_text("said")
            os.utime(directory / f"{age}.log", (1000 - age, 1000 - age))
        (directory / "3.json").touch()
    retention = Retention(store.config)
    garbage = retention.garbage(2)
    before = retention.garbage(100).size_bytes
    assert before == 0
    assert len(garbage.logs) == 2
    retention.remove(garbage)
    for directory in directories:
        assert sorted(path.name for path in directory.iterdir()) == ["0.log", "1.log", "3.json"]
