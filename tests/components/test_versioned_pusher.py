"""The stock Pusher with our executor: blessings, versions, what is recorded, and the commands on what was pushed."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf import json_format
from tfx import components as standard
from tfx import types
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.proto import pusher_pb2
from tfx.types import channel_utils, standard_artifacts

from components import model_artifact
from components.delivery.manifest import build_manifest
from components.push_destination import PushDestination
from components.quantization.contract.file_metadata import ModelIdentity, with_metadata
from components.versioned_pusher import Executor
from pipelines.__main__ import main

from contract_cases import image_model

Filesystem = pusher_pb2.PushDestination.Filesystem


def _model(directory: Path, content: bytes) -> types.Artifact:
    artifact = standard_artifacts.Model()
    artifact.uri = str(directory)
    with model_artifact.staged_output(artifact) as staged:
        (model_artifact.serving_directory(staged) / "tflite").write_bytes(content)
        facts: dict[str, str | int | float] = {"scheme": "full_int8", "sha256": hashlib.sha256(content).hexdigest()}
        model_artifact.record_facts(artifact, staged, facts)
    return artifact


def _blessing(kind: type, blessed: int) -> types.Artifact:
    artifact = kind()
    artifact.set_int_custom_property("blessed", blessed)
    return artifact


def _push(root: Path, content: bytes, run_id: str = "", **inputs: types.Artifact) -> types.Artifact:
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(root / "archive")
    given = {"model": inputs.pop("model", None) or _model(root / "model", content), **inputs}
    destination = pusher_pb2.PushDestination(filesystem=Filesystem(base_directory=str(root / "pushed")))
    properties = {"push_destination": json_format.MessageToJson(destination), "custom_config": "null"}
    executor = Executor(BaseExecutor.Context(pipeline_run_id=run_id)) if run_id else Executor()
    executor.Do({key: [artifact] for key, artifact in given.items()}, {"pushed_model": [pushed]}, properties)
    return pushed


def _properties(artifact: types.Artifact) -> tuple[int, str, str]:
    text = artifact.get_string_custom_property
    return artifact.get_int_custom_property("pushed"), text("pushed_destination"), text("pushed_version")


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_pusher_records_what_the_stock_one_does_when_it_pushes(tmp_path: Path) -> None:
    pushed = _push(tmp_path, b"model")
    destination = PushDestination(str(tmp_path / "pushed"))
    version = destination.latest()
    assert _properties(pushed) == (1, str(tmp_path / "pushed" / version), version)
    assert (tmp_path / "archive" / "tflite").read_bytes() == b"model"
    assert {path.name for path in (tmp_path / "pushed" / version).iterdir()} == {"tflite", "manifest.json"}
    manifest = destination.manifest(version)
    assert manifest is not None
    assert dict(manifest.facts) == {"scheme": "full_int8", "sha256": hashlib.sha256(b"model").hexdigest()}
    assert (tmp_path / "pushed" / "latest").read_bytes() == f"{version}\n".encode()


def test_pusher_records_hashes_and_what_a_version_replaced(tmp_path: Path) -> None:
    text = [_push(tmp_path, content).get_string_custom_property for content in (b"first", b"second", b"second")]
    first, second = (hashlib.sha256(content).hexdigest() for content in (b"first", b"second"))
    assert [one("sha256") for one in text] == [first, second, second]
    assert [one("parent_sha256") for one in text] == [first, second, second]
    assert [one("replaced_sha256") for one in text] == ["", first, ""]  # the second was the latest already
    assert [one("replaced_version") for one in text] == ["", text[0]("pushed_version"), ""]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text[0]("pushed_at"))


def test_pusher_records_what_its_run_replaced_when_an_attempt_before_was_killed(tmp_path: Path) -> None:
    """The first attempt of a run moves the pointer; what it recorded is lost."""
    contents = [b"first", b"second", b"second", b"second"]
    runs = ["run-1", "run-2", "run-2", "run-3"]
    pushed = [_push(tmp_path, content, run_id=run) for content, run in zip(contents, runs, strict=True)]
    first = pushed[0].get_string_custom_property("pushed_version")
    assert [one.get_string_custom_property("replaced_version") for one in pushed] == ["", first, first, ""]


def test_pusher_records_the_hash_of_the_file_that_is_there_when_an_earlier_run_pushed_the_same_model(
    tmp_path: Path,
) -> None:
    contents = [with_metadata(image_model(), ModelIdentity(run_id=run)) for run in ("run-1", "run-2")]
    pushed = [_push(tmp_path, content) for content in contents]
    assert _properties(pushed[0]) == _properties(pushed[1])
    assert {one.get_string_custom_property("sha256") for one in pushed} == {hashlib.sha256(contents[0]).hexdigest()}


def _reported(directory: Path, page: str) -> types.Artifact:
    blessing = _blessing(standard_artifacts.ModelBlessing, 1)
    blessing.uri = str(directory)
    directory.mkdir()
    (directory / "report.html").write_text(page, encoding="utf-8")
    return blessing


def test_pusher_puts_the_report_beside_the_model_when_the_blessing_has_one(tmp_path: Path) -> None:
    plain = _push(tmp_path / "plain", b"model")
    pushed = _push(tmp_path, b"model", model_blessing=_reported(tmp_path / "first", "<p>first \u2713</p>"))
    version = _properties(pushed)[2]
    assert version == _properties(plain)[2]  # the page is no part of the model's identity
    beside = tmp_path / "pushed" / version / "report.html"
    assert beside.read_text(encoding="utf-8") == "<p>first \u2713</p>"
    assert (tmp_path / "archive" / "report.html").read_bytes() == beside.read_bytes()
    destination = PushDestination(str(tmp_path / "pushed"))
    assert destination.problems(version) == []
    manifest = destination.manifest(version)
    assert manifest is not None
    assert list(manifest.files) == ["tflite"]
    # The same model again: one version, with the page of the run that made its files.
    again = _push(tmp_path, b"model", model_blessing=_reported(tmp_path / "second", "<p>second</p>"))
    assert _properties(again)[2] == version
    assert [entry.version for entry in destination.history()] == [version]
    assert "first" in beside.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "infra", "expected"), [(1, 1, 1), (1, None, 1), (None, 1, 1), (0, 1, 0), (1, 0, 0), (0, None, 0)]
)
def test_pusher_honours_blessings(tmp_path: Path, model: int | None, infra: int | None, expected: int) -> None:
    kinds = {
        "model_blessing": (standard_artifacts.ModelBlessing, model),
        "infra_blessing": (standard_artifacts.InfraBlessing, infra),
    }
    blessings = {key: _blessing(kind, value) for key, (kind, value) in kinds.items() if value is not None}
    pushed = _push(tmp_path, b"model", **blessings)
    assert pushed.get_int_custom_property("pushed") == expected
    assert (tmp_path / "pushed").exists() is bool(expected)


def test_pusher_pushes_once_when_it_runs_again(tmp_path: Path) -> None:
    first = _push(tmp_path, b"model")
    version = _properties(first)[2]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pushed" / version).iterdir()}
    assert _properties(_push(tmp_path, b"model")) == _properties(first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pushed" / version).iterdir()} == before
    assert len(PushDestination(str(tmp_path / "pushed")).history()) == 1


def test_pusher_moves_the_pointer_back_when_an_earlier_model_comes_again(tmp_path: Path) -> None:
    first, second = (_properties(_push(tmp_path, content))[2] for content in (b"first", b"second"))
    destination = PushDestination(str(tmp_path / "pushed"))
    assert destination.latest() == second
    assert _properties(_push(tmp_path, b"first"))[2] == first
    assert destination.latest() == first
    assert [entry.version for entry in destination.history()] == [first, second, first]


def test_pusher_mends_a_version_when_its_files_were_changed(tmp_path: Path) -> None:
    version = _properties(_push(tmp_path, b"model"))[2]
    (tmp_path / "pushed" / version / "tflite").write_bytes(b"changed")
    assert PushDestination(str(tmp_path / "pushed")).problems(version)
    assert _properties(_push(tmp_path, b"model"))[2] == version
    assert PushDestination(str(tmp_path / "pushed")).problems(version) == []


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        (pusher_pb2.PushDestination(), "expected a filesystem"),
        (
            pusher_pb2.PushDestination(
                filesystem=Filesystem(base_directory="x", versioning=pusher_pb2.Versioning.UNIX_TIMESTAMP)
            ),
            "versions are named by their content",
        ),
    ],
)
def test_pusher_refuses_a_destination_when_it_cannot_push_there(
    tmp_path: Path, destination: pusher_pb2.PushDestination, message: str
) -> None:
    properties = {"push_destination": json_format.MessageToJson(destination)}
    with pytest.raises(ValueError, match=message):
        Executor().Do({}, {"pushed_model": [standard_artifacts.PushedModel()]}, properties)


def test_stock_pusher_takes_the_executor() -> None:
    pusher = standard.Pusher(
        model=channel_utils.as_channel([standard_artifacts.Model()]),
        push_destination=pusher_pb2.PushDestination(filesystem=Filesystem(base_directory="x")),
        custom_executor_spec=executor_spec.ExecutorClassSpec(Executor),
    )
    assert pusher.id == "Pusher"
    assert pusher.executor_spec.class_path == "components.versioned_pusher.Executor"


def test_rollback_goes_back_step_by_step_and_ends_with_2_at_the_first(tmp_path: Path) -> None:
    first, second, third = (_properties(_push(tmp_path, name.encode()))[2] for name in ("1", "2", "3"))
    pushed = tmp_path / "pushed"
    shown = _run("rollback", pushed, "--list")
    assert (shown.exit_code, [line.split()[0] for line in shown.output.splitlines()]) == (0, [first, second, third])
    assert [line for line in shown.output.splitlines() if line.endswith("  latest")] == shown.output.splitlines()[2:]
    for target, was in ((second, third), (first, second)):
        result = _run("rollback", pushed)
        assert result.exit_code == 0, result.output
        assert f"latest is now {target}, was {was}" in result.output
        assert (pushed / "latest").read_text() == f"{target}\n"
    result = _run("rollback", pushed)
    assert result.exit_code == 2
    assert f"nothing was pushed before {first}" in result.output
    assert _run("rollback", pushed, "--to", third).exit_code == 0
    assert PushDestination(str(pushed)).latest() == third
    actions = [json.loads(path.read_text())["action"] for path in sorted((pushed / "history").iterdir())]
    assert actions == ["push"] * 3 + ["rollback"] * 3


def test_rollback_refuses_a_version_when_it_is_damaged_or_not_there(tmp_path: Path) -> None:
    first, second = (_properties(_push(tmp_path, name.encode()))[2] for name in ("1", "2"))
    pushed = tmp_path / "pushed"
    (pushed / first / "tflite").write_bytes(b"?")
    result = _run("rollback", pushed)
    assert result.exit_code == 2
    assert f"version {first}" in result.output
    assert "tflite: got 1 bytes of sha256" in result.output
    (pushed / first / "manifest.json").write_text("{")
    for arguments in (["--to", first], ["--to", "0" * 12]):
        result = _run("rollback", pushed, *arguments)
        assert result.exit_code == 2
        assert f"expected one of {second}" in result.output
    assert PushDestination(str(pushed)).latest() == second


def test_rollback_mends_the_pointer_when_it_names_no_version(tmp_path: Path) -> None:
    version = _properties(_push(tmp_path, b"model"))[2]
    (tmp_path / "pushed" / "latest").write_text("nonsense")
    assert "names no version; roll back to one" in _run("verify", tmp_path / "pushed").output
    assert _run("rollback", tmp_path / "pushed").exit_code == 0
    assert PushDestination(str(tmp_path / "pushed")).latest() == version


def test_verify_ends_with_1_when_a_file_was_changed(tmp_path: Path) -> None:
    version = _properties(_push(tmp_path, b"model"))[2]
    assert _run("verify", tmp_path / "pushed").exit_code == 0
    (tmp_path / "pushed" / version / "tflite").write_bytes(b"modem")
    result = _run("verify", tmp_path / "pushed", "--version", version)
    assert result.exit_code == 1
    assert "tflite: got 5 bytes" in result.output


def test_verify_says_what_lies_beside_the_files_and_that_the_pointer_was_left_behind(tmp_path: Path) -> None:
    first, second = (_properties(_push(tmp_path, content))[2] for content in (b"first", b"second"))
    (tmp_path / "pushed" / second / "notes.txt").touch()
    assert "notes.txt: got a file that was not pushed" in _run("verify", tmp_path / "pushed").output
    assert _run("verify", tmp_path / "pushed", "--version", first).exit_code == 0
    # As a push leaves it that read the history before another one added to it, and was killed when it had written.
    (tmp_path / "pushed" / "latest").write_text(f"{first}\n")
    result = _run("verify", tmp_path / "pushed")
    assert result.exit_code == 1
    assert f"latest: got {first}, expected {second}, which became it later" in result.output


def test_push_that_is_repeated_after_another_one_leaves_that_one_the_latest(tmp_path: Path) -> None:
    destination = PushDestination(str(tmp_path / "pushed"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tflite").write_text(name)
    one, two = (build_manifest(tmp_path / name, facts={}, run_id=name, pushed_at="now") for name in ("one", "two"))
    destination.push(tmp_path / "one", one)
    latest = destination.push(tmp_path / "two", two)
    assert destination.push(tmp_path / "one", one) == one.version
    assert (destination.latest(), len(destination.history())) == (latest, 2)
    again = dataclasses.replace(one, run_id="a later run that made the same model")
    assert destination.push(tmp_path / "one", again) == destination.latest() == one.version


@pytest.mark.parametrize("key", ["model", "model_blessing", "infra_blessing"])
def test_pusher_refuses_a_file_that_is_not_the_one_which_was_blessed(tmp_path: Path, key: str) -> None:
    kinds = {"model_blessing": standard_artifacts.ModelBlessing, "infra_blessing": standard_artifacts.InfraBlessing}
    given = {name: _blessing(kind, 1) for name, kind in kinds.items()}
    hashes = [hashlib.sha256(content).hexdigest() for content in (b"integer", b"model")]
    for blessing in given.values():
        for name, value in zip(("model_sha256", "compiled_model_sha256"), hashes, strict=True):
            blessing.set_string_custom_property(name, value)
    _push(tmp_path, b"model", **given)
    if key != "model":
        given[key].set_string_custom_property("compiled_model_sha256", "0" * 64)
        with pytest.raises(ValueError, match=f"{key}: it is of a file with sha256 0000"):
            _push(tmp_path / "other", b"model", **given)
    else:
        model = _model(tmp_path / "changed", b"model")
        (tmp_path / "changed" / "Format-Serving" / "tflite").write_bytes(b"modem")
        with pytest.raises(ValueError, match=f"model: it is of a file with sha256 {hashes[1]}"):
            _push(tmp_path / "other", b"", **given, model=model)
    assert not (tmp_path / "other" / "pushed").exists()


@pytest.mark.parametrize("command", ["rollback", "verify"])
def test_command_ends_with_2_when_nothing_was_pushed(tmp_path: Path, command: str) -> None:
    result = _run(command, tmp_path)
    assert result.exit_code == 2
    assert "got nothing that was pushed, expected a config (devices, digits" in result.output
