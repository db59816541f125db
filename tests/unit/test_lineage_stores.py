"""Lineage where several configs have stores of their own: which one answers is never left to chance."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.bench.recorded_run import RECORDING, Replay, Replayed, open_store
from pipelines import configs
from pipelines.__main__ import main

_RECORDED = json.loads(RECORDING.read_text())
_DEAD = "grpc://127.0.0.1:1"


def _store(path: Path) -> Replay:
    return Replay(open_store(path), _RECORDED, str(path.with_suffix("")))


def _sha256(path: Path, run: Replayed) -> str:
    """That of the model that a run pushed for the CPU."""
    (pushed,) = [
        one
        for one in open_store(path).get_artifacts_by_id(list(run.artifacts.values()))
        if one.type == "PushedModel" and "/Pusher-cpu/" in one.uri
    ]
    return pushed.custom_properties["sha256"].string_value


def _cli(monkeypatch: pytest.MonkeyPatch, urls: list[str | Path], *arguments: object) -> Result:
    """`lineage` where there is one config for each of those stores."""
    by_name = {f"config_{number}": str(url) for number, url in enumerate(urls)}
    base = configs.load_config("digits")
    with monkeypatch.context() as patched:
        patched.setattr(configs, "config_names", lambda: list(by_name))
        patched.setattr(configs, "load_config", lambda name: dataclasses.replace(base, metadata=by_name[name]))
        return CliRunner().invoke(main, ["lineage", *map(str, arguments)])


def test_lineage_names_the_stores_when_several_have_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = tmp_path / "ann.sqlite", tmp_path / "bob.sqlite"
    _store(ann).run("run-1")
    pushed = max(_store(bob).run("run-2").artifacts.values())
    for urls in ([ann, bob], [bob, ann]):
        result = _cli(monkeypatch, [*urls], pushed)
        assert result.exit_code == 2
        found = f"artifact {pushed} is in more than one ML Metadata; choose one by --metadata: {urls[0]}, {urls[1]}"
        assert found in result.stderr
    chosen = _cli(monkeypatch, [ann, bob], pushed, "--metadata", bob, "--json")
    assert (json.loads(chosen.stdout)["run"], json.loads(chosen.stdout)["store"]) == ("run-2", str(bob))


def test_lineage_names_the_store_that_answered_when_one_has_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = tmp_path / "ann.sqlite", tmp_path / "bob.sqlite"
    _store(ann).run("run-1")
    sha256 = _sha256(bob, _store(bob).run("run-2"))
    assert f"in ML Metadata at {bob}" in _cli(monkeypatch, [ann, bob], sha256[:12]).stdout


def test_lineage_names_the_stores_when_several_have_the_hash_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, copy = tmp_path / "ann.sqlite", tmp_path / "copy.sqlite"
    _store(ann).run("run-1")
    file = tmp_path / "device.tflite"
    file.write_bytes(b"a model")
    client = open_store(ann)
    (model,) = [one for one in client.get_artifacts_by_type("Model") if "/TargetCompiler-cpu/" in one.uri]
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    model.custom_properties["sha256"].string_value = sha256
    client.put_artifacts([model])
    shutil.copy(ann, copy)
    for what in (sha256[:12], file):
        result = _cli(monkeypatch, [ann, copy], what)
        assert result.exit_code == 2
        assert f"sha256 {sha256[:12]}" in result.stderr
        assert f"is in more than one ML Metadata; choose one by --metadata: {ann}, {copy}" in result.stderr


def test_lineage_takes_a_store_once_when_two_configs_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = tmp_path / "ann.sqlite"
    pushed = max(_store(ann).run("run-1").artifacts.values())
    (tmp_path / "link.sqlite").symlink_to(ann)
    result = _cli(monkeypatch, [ann, tmp_path / "link.sqlite"], pushed, "--json")
    assert json.loads(result.stdout)["store"] == str(ann)


def test_list_joins_stores_in_time_and_says_of_which_each_push_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"2026-01-01T00:00:00Z": "ann", "2026-01-02T00:00:00Z": "bob", "2026-01-03T00:00:00Z": "ann"}
    replays = {name: _store(tmp_path / f"{name}.sqlite") for name in ("ann", "bob")}
    for at, name in times.items():
        run, client = replays[name].run(at), open_store(tmp_path / f"{name}.sqlite")
        pushed = [one for one in client.get_artifacts_by_type("PushedModel") if one.id in run.artifacts.values()]
        for one in pushed:
            one.custom_properties["pushed_at"].string_value = at
        client.put_artifacts(pushed)
    urls: list[str | Path] = [tmp_path / "ann.sqlite", tmp_path / "bob.sqlite"]
    listed = json.loads(_cli(monkeypatch, urls, "list", "--json").stdout)["pushes"]
    assert [(one["at"], Path(one["store"]).stem) for one in listed] == [
        (at, name)
        for at, name in times.items()
        for _ in range(2)  # two targets
    ]
    table = _cli(monkeypatch, urls, "list").stdout.splitlines()
    assert [line.rsplit(maxsplit=1)[-1] for line in table[1::2]] == [one["store"] for one in listed[::2]]
    assert str(urls[0]) not in _cli(monkeypatch, urls[:1], "list").stdout  # of one store it goes without saying


def test_lineage_warns_and_goes_on_when_a_store_of_another_config_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = tmp_path / "ann.sqlite"
    sha256 = _sha256(ann, _store(ann).run("run-1"))
    result = _cli(monkeypatch, [_DEAD, ann], sha256, "--json")
    assert (result.exit_code, json.loads(result.stdout)["sha256"]) == (0, sha256)
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(f"warning: ML Metadata at {_DEAD} cannot be opened: ")
    for asked in ([_DEAD], [ann]):  # the only one that there is, or that was asked for
        where = ["--metadata", _DEAD] if asked == [ann] else []
        failed = _cli(monkeypatch, [*asked], sha256, *where)
        assert failed.exit_code == 2
        assert "cannot be opened" in failed.stderr
