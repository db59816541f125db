"""One run of a compiler: what is kept of what it says, and that its limit holds."""

import time
from pathlib import Path

from components.targets._run import communicate


def test_run_keeps_all_that_is_said_and_the_exit_status(tmp_path: Path) -> None:
    assert communicate(["sh", "-c", "echo out; echo err >&2; exit 3"], 60, tmp_path) == (3, "out\nerr\n")


def test_run_keeps_what_was_said_when_it_is_stopped(tmp_path: Path) -> None:
    started = time.monotonic()
    assert communicate(["sh", "-c", "echo begun; sleep 600"], 2, tmp_path) == (None, "begun\n")
    assert time.monotonic() - started < 30


def test_run_is_not_waited_for_when_something_holds_its_output_open(tmp_path: Path) -> None:
    # Its parent, which stops descendants, is killed before it can.
    script = "echo begun; (setsid sleep 20 &) ; kill -9 $PPID; sleep 20"
    started = time.monotonic()
    status, said = communicate(["sh", "-c", script], 3, tmp_path)
    assert time.monotonic() - started < 18
    assert said == "begun\n"
    assert status != 0
