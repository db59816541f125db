"""Programs of which nothing is left when a block ends, nor when this process does, by whatever signal."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_SUPERVISOR = str(Path(__file__).with_name("process_supervisor.py"))
_STOP_S = 5  # how long to wait for what was killed


def environment_of_modules() -> dict[str, str]:
    """Returns this process's environment, in which a Python finds the modules that this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextlib.contextmanager
def process_group(
    command: Sequence[str], *, if_orphaned: Sequence[str] = (), **options: Any
) -> Iterator["subprocess.Popen[str]"]:
    """Starts a program; all that it started is killed when it ends, when the block ends, or when this process ends.

    That holds for descendants in sessions of their own as well: see `process_supervisor`, through which it runs. Its
    exit status and signal are those of the program.

    Args:
      command: The program and its arguments.
      if_orphaned: A command to run if this process ends within the block, for what is no descendant of the program.
      **options: Further arguments of `subprocess.Popen`; standard output is a pipe, of text.

    Raises:
      OSError: If the program does not start.
    """
    read, write = os.pipe()
    with open(read, "rb") as report:
        try:
            commands = json.dumps([list(command), list(if_orphaned)])
            supervised = [sys.executable, "-I", "-S", _SUPERVISOR, str(os.getpid()), str(write), commands]
            process = subprocess.Popen(
                supervised,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                pass_fds=(write,),
                **options,
            )
        finally:
            os.close(write)
        try:
            failure = report.read()
            if failure:
                raise OSError(int(failure), os.strerror(int(failure)), command[0])
            yield process
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[str]") -> None:
    """Stops what still runs, within seconds, and closes the pipes."""
    for stop in (process.terminate, process.kill):
        if process.poll() is None:
            stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
