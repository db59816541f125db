"""ML Metadata in a SQLite file, in real PostgreSQL and MariaDB, and behind gRPC: shared, restarted, refused."""

import dataclasses
import hashlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY
from ml_metadata.proto import metadata_store_pb2 as mlmd

from infra import metadata_servers
from pipelines.__main__ import main
from pipelines.exclusive import exclusive_root
from pipelines.metadata import MetadataStore
from pipelines.metadata_opening import open_store

import replayed_store
from metadata_grpc_server import metadata_grpc_server
from recorded_runs import HELD, HOLD, command, config_of

_SERVERS = metadata_servers.kinds()
_KINDS = ("sqlite", "grpc", *_SERVERS)
_numbers = itertools.count()
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?|\"(?:seconds|started_s)\": [\d.]+")
pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Store:
    """An empty store."""

    url: str
    server: metadata_servers.Server | None = None


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], metadata_servers.Server]]:
    """Starts each server when it is first asked for."""
    with ExitStack() as stack:
        started: dict[str, metadata_servers.Server] = {}

        def server(kind: str) -> metadata_servers.Server:
            if lacking := metadata_servers.missing(kind):
                pytest.skip(f"{lacking} not installed: apt-get install postgresql mariadb-server")
            if kind not in started:
                started[kind] = stack.enter_context(metadata_servers.running(kind))
            return started[kind]

        yield server


@pytest.fixture
def new_store(
    servers: Callable[[str], metadata_servers.Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Store]]:
    """Makes an empty store of a kind; its password is in the environment."""
    with ExitStack() as stack:

        def make(kind: str) -> Store:
            if kind == "sqlite":
                return Store(str(tmp_path / "stores" / "shared.sqlite"))
            if kind == "grpc":
                return Store(stack.enter_context(metadata_grpc_server(str(tmp_path / "behind_grpc.sqlite"))))
            server = servers(kind)
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            return Store(server.create_database(f"store_{next(_numbers)}"), server)

        yield make


@pytest.fixture(params=_KINDS)
def store(request: pytest.FixtureRequest, new_store: Callable[[str], Store]) -> Store:
    return new_store(request.param)


@pytest.fixture(params=_SERVERS)
def served_store(request: pytest.FixtureRequest, new_store: Callable[[str], Store]) -> Store:
    return new_store(request.param)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a process of recorded_runs with a store, a name, a runner and a number of runs."""
    processes = []

    def popen(store: Store, name: str, runner: str, runs: int) -> "subprocess.Popen[str]":
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
        process = subprocess.Popen(
            command(store.url, name, str(root), runner, str(runs)),
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield popen
    for process in processes:
        process.kill()
        process.wait()


def _output(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def _states(store: Any, executions: list[Any]) -> Counter[str]:
    return Counter(mlmd.Execution.State.Name(execution.last_known_state) for execution in executions)


def _texts(artifacts: list[Any]) -> list[str]:
    return [(Path(artifact.uri) / "text").read_text() for artifact in artifacts]


@pytest.mark.long
def test_store_loses_and_crosses_nothing_when_two_pipelines_write_at_once(
    store: Store, start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    runners = {"ann": "local", "bob": "beam"}
    processes = {name: start(store, name, runner, 5) for name, runner in runners.items()}
    outputs = {name: _output(process) for name, process in processes.items()}

    opened = open_store(store.url)
    # Of five runs the second and fourth are from the cache; of three components each.
    assert _states(opened, opened.get_executions()) == {"COMPLETE": 2 * 9, "CACHED": 2 * 6}
    assert len(opened.get_artifacts()) == 2 * 9
    assert len(opened.get_contexts_by_type("pipeline_run")) == 2 * 5
    for name in runners:
        pipeline = opened.get_context_by_type_and_name("pipeline", name)
        executions = opened.get_executions_by_context(pipeline.id)
        assert _states(opened, executions) == {"COMPLETE": 9, "CACHED": 6}
        artifacts = opened.get_artifacts_by_context(pipeline.id)
        assert len(artifacts) == 9
        assert all(artifact.uri.startswith(str(tmp_path / name)) for artifact in artifacts)
        texts = _texts(artifacts)
        assert all(text.endswith(tuple(a.uri for a in artifacts if a.type == "Examples")) for text in texts)
        numbers = Counter(re.sub(r" at .*", "", text) for text in texts)
        each = [f"{before}{number}" for number in range(3) for before in ("", "model of ", "blessing of model of ")]
        assert numbers == dict.fromkeys(each, 1)
        model = max((a for a in artifacts if a.type == "Model"), key=lambda artifact: artifact.id)
        _check_lineage(store, model, {"ann": "bob", "bob": "ann"}[name])
        if store.server is not None:
            assert store.server.password not in outputs[name]
            assert "Using connection config" in outputs[name]  # TFX does write it
            files = [path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()]
            assert not any(store.server.password.encode() in content for content in files)


def _check_lineage(store: Store, model: Any, other: str) -> None:
    result = CliRunner().invoke(main, ["lineage", str(Path(model.uri) / "text"), "--metadata", store.url])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("Collect", "Train", "Bless", model.uri))
    assert f"/{other}/" not in result.output


@pytest.mark.parametrize("kind", [kind for kind in _KINDS if kind != "sqlite"])
def test_lineage_answers_of_real_runs_as_from_sqlite(
    kind: str, new_store: Callable[[str], Store], tmp_path: Path
) -> None:
    answers = []
    for url in ("", new_store(kind).url):
        replayed = replayed_store.Store(tmp_path / "replayed", url)
        first, second = replayed.run("run-1"), replayed.run("run-2")
        file, other = (replayed.file(run, "edge_tpu", tmp_path / f"{run.run_id}.bin") for run in (first, second))
        (tmp_path / "tampered.bin").write_bytes(b"x" + file.read_bytes()[1:])
        asked = (
            (file, "--json"),
            (hashlib.sha256(other.read_bytes()).hexdigest()[:12], "--json"),
            ("diff", file, other, "--json"),
            ("list", "--json"),
            (tmp_path / "tampered.bin",),
        )
        results = [replayed.cli(*arguments) for arguments in asked]
        assert [result.exit_code for result in results] == [0, 0, 0, 0, 2], results
        # Only where a store is, and when it was filled, may differ.
        answers.append([_TIMES.sub("", one.output.replace(replayed.url, "")) for one in results])
    assert answers[0] == answers[1]
    assert '"version"' in answers[0][3]
    assert "which has the same UUID" in answers[0][4]


@pytest.mark.long
def test_run_is_complete_when_the_server_restarts_while_a_component_works(
    served_store: Store, start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    root = tmp_path / "ann"
    root.mkdir()
    (root / HOLD).touch()
    process = start(served_store, "ann", "local", 1)
    deadline_s = time.monotonic() + 300
    while not (root / HELD).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert served_store.server is not None
    served_store.server.stop()
    served_store.server.start()
    (root / HOLD).unlink()
    _output(process)
    run = MetadataStore(served_store.url).last_run("ann")
    assert [(execution.component, execution.complete) for execution in run] == [
        ("Collect", True),
        ("Train", True),
        ("Bless", True),
    ]


_OPEN_AND_CLAIM = """
import sys
from pipelines.metadata import MetadataStore, Owner
url, me = sys.argv[1:]
input()
print(MetadataStore(url, create=True).claim("ann", Owner(root_id=me, root="here")).root_id)
"""


def test_claim_gives_one_owner_when_several_open_an_empty_store_at_once(store: Store) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _OPEN_AND_CLAIM, store.url, f"id-{number}"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), results
    owners = {output.strip() for output, _ in results}
    assert len(owners) == 1
    assert owners < {f"id-{number}" for number in range(4)}


def _record_running(store: Any, pipeline: str) -> int:
    """An execution as TFX's launcher leaves it while its executor works."""
    execution_type = store.put_execution_type(mlmd.ExecutionType(name="Train"))
    contexts = []
    for type_name, name in (("pipeline", pipeline), ("pipeline_run", f"{pipeline}-1"), ("node", f"{pipeline}.Train")):
        type_id = store.put_context_type(mlmd.ContextType(name=type_name))
        contexts.append(mlmd.Context(type_id=type_id, name=name))
    execution = mlmd.Execution(type_id=execution_type, last_known_state=mlmd.Execution.RUNNING)
    execution_id, _, _ = store.put_execution(execution, [], contexts)
    return int(execution_id)


def test_exclusive_root_ends_abandoned_executions_of_its_own_pipeline_alone(store: Store, tmp_path: Path) -> None:
    opened = open_store(store.url, create=True)
    dead, alive = _record_running(opened, "ann"), _record_running(opened, "bob")
    ann = config_of(store.url, "ann", tmp_path / "ann")
    left = [Path(config_of(store.url, name, tmp_path / name).pipeline_root) / "Train/model" for name in ("ann", "bob")]
    for directory, execution in itertools.product(left, (dead, alive)):
        (directory / str(execution)).mkdir(parents=True)
    with exclusive_root(ann):
        states = {e.id: e.last_known_state for e in opened.get_executions()}
        assert states == {dead: mlmd.Execution.FAILED, alive: mlmd.Execution.RUNNING}
        there = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/artifacts/Train/model/*"))
        assert there == sorted(
            f"{name}/artifacts/Train/model/{execution}"
            for name, execution in (("ann", alive), ("bob", dead), ("bob", alive))
        )


def test_exclusive_root_refuses_a_pipeline_of_another_root(store: Store, tmp_path: Path) -> None:
    first, second = (config_of(store.url, "ann", tmp_path / name) for name in ("first", "second"))
    with exclusive_root(first):
        running = _record_running(open_store(store.url), "ann")
        with pytest.raises(ValueError, match=r"pipeline 'ann' of .* is that of root .*/first, not of .*/second"):
            exclusive_root(second).__enter__()
        opened = open_store(store.url)
        assert [e.last_known_state for e in opened.get_executions_by_id([running])] == [mlmd.Execution.RUNNING]
    (tmp_path / "first").rename(tmp_path / "moved")
    with exclusive_root(config_of(store.url, "ann", tmp_path / "moved")):
        pass
    with exclusive_root(config_of(store.url, "bob", tmp_path / "second")):
        pass


def test_exclusive_root_refuses_other_metadata_than_the_root_had(store: Store, tmp_path: Path) -> None:
    shared, own = (config_of(url, "ann", tmp_path / "root") for url in (store.url, ""))
    with exclusive_root(shared):
        pass
    for other in (own, config_of(str(tmp_path / "other.sqlite"), "ann", tmp_path / "root")):
        with pytest.raises(
            ValueError, match=r"root .*/root has its ML Metadata at .*, not at .*; use that, or another"
        ):
            exclusive_root(other).__enter__()
    assert not (tmp_path / "other.sqlite").exists()
    before = config_of("", "ann", tmp_path / "before")
    with exclusive_root(before):
        open_store(before.metadata_url, create=True)
    with pytest.raises(ValueError, match=r"has its ML Metadata at .*/before/metadata.sqlite, not at "):
        exclusive_root(config_of(store.url, "ann", tmp_path / "before")).__enter__()
    with exclusive_root(config_of(str(tmp_path / "before" / "metadata.sqlite"), "ann", tmp_path / "before")):
        pass
    assert not (tmp_path / "before" / ".metadata-place").exists()


def _refused(url: str, root: Path, **environment: str) -> str:
    """What a run says that cannot open its store, having done nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "run", "digits", "--root", str(root), "--metadata", url],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert {path.name for path in root.glob("*")} <= {".lock"}
    (said,) = done.stderr.splitlines()
    return said


@pytest.mark.parametrize(
    ("kind", "no_password", "no_database"),
    [
        ("postgresql", 'password authentication failed for user "tfx"', 'database "nowhere" does not exist'),
        ("mysql", "refused, and its client says not why", "Unknown database 'nowhere'"),
    ],
)
def test_run_says_what_is_wrong_before_it_begins(
    kind: str, no_password: str, no_database: str, new_store: Callable[[str], Store], tmp_path: Path
) -> None:
    store = new_store(kind)
    assert store.server is not None
    ((variable, _),) = store.server.environment.items()
    said = _refused(store.url, tmp_path / "root", **{variable: "not-it"})
    assert no_password in said
    assert f"check the user, the password (in {variable}, or ?password_file=PATH)" in said
    assert "not-it" not in said
    assert no_database in _refused(store.server.url("nowhere"), tmp_path / "root")
    elsewhere = store.url.replace(f":{store.server.port}/", ":1/")
    assert "Connection refused; is the server running at 127.0.0.1, port 1?" in _refused(elsewhere, tmp_path / "root")
    assert "unknown scheme" in _refused(store.url.replace(kind, "oracle"), tmp_path / "none")


def test_run_says_what_is_wrong_when_no_grpc_server_answers(tmp_path: Path) -> None:
    said = _refused("grpc://127.0.0.1:1", tmp_path / "root")
    assert "is the server running at 127.0.0.1, port 1?" in said


def test_open_store_takes_the_password_from_a_file(
    served_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served_store.server is not None
    for variable, password in served_store.server.environment.items():
        (tmp_path / "password").write_text(f"{password}\n")
        monkeypatch.setenv(variable, "not-it")
    with pytest.raises(ValueError, match="cannot be opened"):
        open_store(served_store.url)
    assert open_store(f"{served_store.url}?password_file={tmp_path / 'password'}").get_artifacts() == []
