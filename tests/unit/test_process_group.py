"""What is left of a program and of what it started: nothing, however it, the block or this process ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.quantization.process_group import process_group

_REPOSITORY = Path(__file__).parent.parent.parent
# Writes ids of itself and of a child with a session of its own, and waits; SIGTERM does not end them.
_PROGRAM = "trap '' TERM; setsid sleep 600 & echo $$ $!; sleep 600; true"
_PARENT = """
import signal, sys
from components.quantization.process_group import process_group
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is started without it
with process_group(["bash", "-c", sys.argv[1]], if_orphaned=["touch", sys.argv[2]]) as process:
    print(process.stdout.readline(), flush=True)
    process.wait()
"""


def _assert_gone(line: str) -> None:
    stats = [Path("/proc") / number / "stat" for number in line.split()]
    assert len(stats) == 2
    deadline = time.monotonic() + 60
    while any(stat.exists() and stat.read_text().split()[2] != "Z" for stat in stats):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_parent_is_ended_by(number: signal.Signals, tmp_path: Path) -> None:
    orphaned = tmp_path / "orphaned"
    command = [sys.executable, "-c", _PARENT, _PROGRAM, str(orphaned)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=_REPOSITORY
    ) as parent:
        assert parent.stdout is not None
        line = parent.stdout.readline()
        parent.send_signal(number)
        try:
            parent.wait(60)
        finally:
            parent.kill()
    _assert_gone(line)
    if number != signal.SIGINT:  # that one Python turns into an error, and the block ends
        deadline = time.monotonic() + 60
        while not orphaned.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert orphaned.exists() == (number != signal.SIGINT)


def test_nothing_is_left_when_the_block_raises() -> None:
    lines = []

    def fail() -> None:
        with process_group(["bash", "-c", _PROGRAM]) as process:
            assert process.stdout is not None
            lines.append(process.stdout.readline())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    _assert_gone(lines[0])


def test_output_ends_with_the_program_when_a_child_holds_it_open() -> None:
    with process_group(["bash", "-c", "setsid sleep 600 & echo $$ $!; exit 3"]) as process:
        line, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    _assert_gone(line)


def test_program_goes_on_when_the_thread_that_started_it_ends() -> None:
    group = process_group(["cat"], stdin=subprocess.PIPE)
    processes = []
    thread = threading.Thread(target=lambda: processes.append(group.__enter__()))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert processes[0].communicate("still here", timeout=60)[0] == "still here"
    group.__exit__(None, None, None)
    assert processes[0].returncode == 0


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGPIPE, signal.SIGTERM])
def test_returncode_is_the_programs_when_a_signal_ends_it(number: signal.Signals) -> None:
    with process_group(["bash", "-c", f"kill -{int(number)} $$"]) as process:
        process.communicate(timeout=60)
    assert process.returncode == -number


def test_program_has_the_signals_and_the_environment_that_it_is_given() -> None:
    command = ["bash", "-c", "grep -E 'SigBlk' /proc/self/status; echo $PYTHONPATH"]
    with process_group(command, env={**os.environ, "PYTHONPATH": "given"}) as process:
        output, _ = process.communicate(timeout=60)
    assert output.split() == ["SigBlk:", "0" * 16, "given"]


@pytest.mark.parametrize("command", ["/nowhere/program", "nowhere"])
def test_process_group_raises_when_there_is_no_such_program(command: str) -> None:
    with pytest.raises(FileNotFoundError, match=command), process_group([command]):
        pass
