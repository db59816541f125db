"""One run of a compiler: a program of which nothing is left afterwards."""

import dataclasses
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.quantization.process_group import process_group

_MOST_OUTPUT = 2**24  # bytes: a compiler's log has some thousands
_STOP_S = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a compiler.

    Attributes:
      command: The program and its arguments.
      seconds: How long it took.
      exit_status: What it ended with, negative for a signal; None if it was stopped since it took too long.
      output: Standard output and error, as they came, up to 16 MiB.
      files: What it wrote, by name.
    """

    command: tuple[str, ...]
    seconds: float
    exit_status: int | None
    output: str
    files: Mapping[str, bytes]


def communicate(
    command: Sequence[str], limit_s: float, directory: Path, if_orphaned: Sequence[str] = ()
) -> tuple[int | None, str]:
    """Runs a program to its end or to the limit of time; nothing that it started outlives it.

    Args:
      command: The program and its arguments.
      limit_s: Limit of time.
      directory: Where it runs.
      if_orphaned: A command to run if this process ends before it.

    Returns:
      Its exit status, None if it was stopped at the limit, and its standard output and error as they came, up to
      16 MiB.
    """
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    said = bytearray()
    status = None
    reader = None
    try:
        with process_group(command, if_orphaned=if_orphaned, cwd=directory, **streams) as process:
            assert process.stdout is not None
            # A descriptor of its own: that of the process is closed when the block ends.
            reader = threading.Thread(target=_read, args=(os.dup(process.stdout.fileno()), said), daemon=True)
            reader.start()
            status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if reader is not None:
            reader.join(_STOP_S)  # what was not stopped, and still talks, is not waited for
    return status, bytes(said).decode(errors="replace")


def _read(descriptor: int, said: bytearray) -> None:
    """Reads to the end, and keeps what is said first."""
    with open(descriptor, "rb", buffering=0) as stream:
        while chunk := stream.read(2**16):
            room = _MOST_OUTPUT - len(said)
            if room > 0:
                said += chunk[:room]
                if len(chunk) > room:
                    said += b"\n(what was said after 16 MiB is left out)\n"
