"""Pushes that are killed, stopped and made at once, on a disk and in an object store."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from object_store import object_store

Json = dict[str, Any]
pytestmark = pytest.mark.extended


@pytest.fixture(scope="module", params=["disk", pytest.param("object store", marks=pytest.mark.long)])
def experiment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., list[Json]]]:
    """Makes an experiment of push_process.py with some models, each called by its content."""
    directory = tmp_path_factory.mktemp("push")

    def model(name: str) -> Path:
        for path in ("tflite", "io_contract.json", "golden_vectors.npz", "variables/data"):
            (directory / name / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / name / path).write_text(f"{path} of {name}")
        return directory / name

    with object_store() as store:
        store.make_bucket("bucket")
        on_disk = request.param == "disk"
        root, environment = (str(directory), {}) if on_disk else ("gs://bucket", store.environment)

        def run(name: str, *models: str) -> list[Json]:
            destination = "-".join([f"{root}/{name}", *models])
            program, every = str(REPOSITORY / "tests" / "push_process.py"), "1" if on_disk else "3"
            ran = subprocess.run(
                [sys.executable, program, name, destination, every, *map(str, map(model, models))],
                env={**os.environ, **environment, "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert ran.returncode == 0, ran.stderr
            rounds: list[Json] = json.loads(ran.stdout.splitlines()[-1])
            return rounds

        yield run


def test_push_leaves_the_old_version_or_the_new_one_when_it_is_killed_at_any_point(
    experiment: Callable[..., list[Json]],
) -> None:
    rounds = experiment("kill_at_changes", "old", "new", "other")
    assert len(rounds) in (37, 13)  # of 4 files, all points on a disk, every third in an object store
    assert {found["killed"]["latest"] == found["new"] for found in rounds} == {True, False}
    assert any(found["killed"]["incomplete"] for found in rounds)
    for found in rounds:
        new, other, killed, repeated, later = (found[key] for key in ("new", "other", "killed", "repeated", "later"))
        old = killed["history"][0][2]
        # What consumers see is whole, as is whatever has a manifest.
        assert killed["latest"] in (old, new)
        assert killed["latest"] in killed["complete"]
        assert (killed["problems"], repeated["problems"], later["problems"]) == ([], [], [])
        assert (repeated["latest"], repeated["complete"]) == (new, sorted([old, new]))
        assert (later["latest"], later["complete"]) == (other, sorted([old, new, other]))
        assert (later["incomplete"], later["left"]) == ([], [])
        assert later["history"] == [[1, "push", old], [2, "push", new], [3, "push", other]]
        cleaned = found["never_repeated"]
        assert cleaned["latest"] == other
        assert (cleaned["problems"], cleaned["incomplete"], cleaned["left"]) == ([], [], [])
        assert {old, other} <= set(cleaned["complete"]) <= {old, new, other}
    assert {new in found["never_repeated"]["complete"] for found in rounds} == {True, False}


def test_push_is_whole_when_it_is_repeated_while_another_cleans_up(experiment: Callable[..., list[Json]]) -> None:
    rounds = experiment("repeat_while_cleaning", "died", "other")
    assert len(rounds) > 3
    for found in rounds:
        state, version = found["state"], found["repeated"]
        assert version in state["complete"]
        assert (state["problems"], state["incomplete"], state["left"]) == ([], [], [])
        assert state["latest"] in state["complete"]
        assert state["latest"] == state["history"][-1][2]


@pytest.mark.parametrize("second", ["second", "first"])
def test_pushes_end_in_one_consistent_state_when_made_at_once(
    experiment: Callable[..., list[Json]], second: str
) -> None:
    for found in experiment("at_once", "first", second):
        state, versions = found["state"], sorted(set(found["pushed"]))
        assert len(versions) == len({"first", second})
        assert (found["read"], state["problems"]) == ([], [])
        assert (state["complete"], state["incomplete"], state["left"]) == (versions, [], [])
        assert state["latest"] == state["history"][-1][2]
        assert {version for _, _, version in state["history"]} == set(versions)


def test_push_goes_on_where_it_was_stopped_when_another_was_made_meanwhile(
    experiment: Callable[..., list[Json]],
) -> None:
    rounds = experiment("stop_and_continue", "slow", "fast")
    assert any(found["between"]["incomplete"] for found in rounds)
    for found in rounds:
        slow, fast = found["pushed"]
        assert found["between"]["latest"] in (slow, fast)
        assert len(found["between"]["left"]) == 1  # that of the living push
        assert found["state"]["complete"] == sorted([slow, fast])
        assert (found["state"]["problems"], found["state"]["left"]) == ([], [])
        assert found["state"]["latest"] == found["state"]["history"][-1][2]


def test_push_that_was_stopped_undoes_no_rollback_when_it_is_killed_as_it_goes_on(
    experiment: Callable[..., list[Json]],
) -> None:
    rounds = experiment("stop_then_kill", "slow", "fast")
    assert {len(found["before"]) for found in rounds} == {1, 2}  # stopped before and after its entry in the history
    for found in rounds:
        old = found["before"][0][2]
        assert found["between"]["latest"] == old
        state = found["state"]
        assert (state["problems"], state["latest"]) == ([], state["history"][-1][2])
        if len(found["before"]) == 2:
            assert (state["history"][-1][1], state["latest"]) == ("rollback", old)
