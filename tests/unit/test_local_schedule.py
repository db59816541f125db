"""The scheduler of this machine as it looks again and again, and what it says of spans without running any."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.retraining.ledger import Ledger
from components.retraining.policy import RetrainingPolicy
from pipelines import local_schedule
from pipelines.local_schedule import status, work

from scheduler_process import scheduler, write_span

_POLICY = RetrainingPolicy(backoff_s=1, backoff_limit_s=3)


class _StoppedError(Exception):
    """The watcher was to wait once more than there is something to do meanwhile."""


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Sets what happens while the watcher waits, the first time and so on; gives the waits, in seconds."""

    def sets(*happenings: Callable[[], object]) -> list[float]:
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) > len(happenings):
                raise _StoppedError
            happenings[len(waits) - 1]()

        monkeypatch.setattr(local_schedule.time, "sleep", sleep)
        return waits

    return sets


def _states(base: Path) -> dict[int, str]:
    return {span: entry.state for span, entry in Ledger(base / "spans").entries().items()}


def test_work_waits_longer_while_the_spans_cannot_be_listed_and_then_handles_them(
    tmp_path: Path, meanwhile: Callable[..., list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    data, away = tmp_path / "data", tmp_path / "away"

    def lost() -> None:
        data.rename(away)

    def back() -> None:
        away.rename(data)
        write_span(tmp_path, 2, "push")

    waits = meanwhile(
        lambda: None, lambda: write_span(tmp_path, 1, "push"), lost, lambda: None, lambda: None, lambda: None, back
    )
    with pytest.raises(_StoppedError):
        work(scheduler(tmp_path, _POLICY), poll_s=0.5)
    # Not there yet: 0.5 * 2, 0.5 * 4; all well; lost: up to the limit of 3; all well again.
    assert waits == [1.0, 2.0, 0.5, 1.0, 2.0, 3.0, 3.0, 0.5]
    assert _states(tmp_path) == {1: "pushed", 2: "pushed"}
    assert "data cannot be listed: No such file or directory; correct the pattern; looks again in 2 s" in caplog.text


def test_work_goes_on_when_another_run_is_at_work_in_the_root(
    tmp_path: Path, meanwhile: Callable[..., list[float]]
) -> None:
    write_span(tmp_path, 1, "busy")
    waits = meanwhile(lambda: (tmp_path / "data" / "span-1" / "part.tfrecord").write_text("push"))
    with pytest.raises(_StoppedError):
        work(scheduler(tmp_path, _POLICY), poll_s=1.0)
    assert waits == [2.0, 1.0]
    assert _states(tmp_path) == {1: "pushed"}


def test_work_goes_on_with_what_was_under_way_when_the_ledger_could_not_be_written(
    tmp_path: Path, meanwhile: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_span(tmp_path, 1, "push")
    one = scheduler(tmp_path, _POLICY)
    real = Ledger.write

    def write(self: Ledger, entry: object) -> None:
        if getattr(entry, "state", "") == "pushed" and not waits:
            raise OSError(28, "No space left on device")
        real(self, entry)  # type: ignore[arg-type]

    waits = meanwhile(lambda: None)
    monkeypatch.setattr(Ledger, "write", write)
    with pytest.raises(_StoppedError):
        work(one, poll_s=1.0)
    assert _states(tmp_path) == {1: "pushed"}
    assert (tmp_path / "begun").read_text().split() == ["1"]


def test_work_raises_when_it_looks_once_and_cannot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data cannot be listed"):
        work(scheduler(tmp_path), poll_s=None)
    write_span(tmp_path, 1, "busy")
    with pytest.raises(ValueError, match="another run is using the root"):
        work(scheduler(tmp_path), poll_s=None)


def test_work_warns_once_of_spans_that_the_pattern_leaves_out(
    tmp_path: Path, meanwhile: Callable[..., list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    write_span(tmp_path, 1, "push")
    shutil.copytree(tmp_path / "data" / "span-1", tmp_path / "data" / "span-002")
    meanwhile(lambda: None, lambda: None)
    with pytest.raises(_StoppedError):
        work(scheduler(tmp_path), poll_s=1.0)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "span-002 is complete and taken for no span" in warnings[0]
    assert "span-002" in list(status(scheduler(tmp_path)))[-1]


def test_status_lists_complete_spans_that_were_not_handled_yet(tmp_path: Path) -> None:
    write_span(tmp_path, 5, "push")
    work(scheduler(tmp_path), poll_s=None)
    write_span(tmp_path, 4, "push")
    write_span(tmp_path, 6, "push")
    fourth, fifth, sixth = (line.split() for line in status(scheduler(tmp_path)))
    expected = "4 waiting 0 run(s) new, and to be skipped: it was complete only after span 5 was begun"
    assert " ".join(fourth) == expected
    assert (fifth[0], fifth[2]) == ("5", "pushed")
    assert sixth == ["6", "waiting", "0", "run(s)", "new"]
    assert _states(tmp_path) == {5: "pushed"}
    shutil.rmtree(tmp_path / "data")
    lines = list(status(dataclasses.replace(scheduler(tmp_path))))
    assert len(lines) == 2
    assert "cannot be listed" in lines[1]
