"""One run of a compiler: a program of which nothing is left afterwards."""

import dataclasses
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.quantization.process_group import process_group


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a compiler.

    Attributes:
      command: The program and its arguments.
      seconds: How long it took.
      exit_status: What it ended with, negative for a signal; None if it was stopped since it took too long.
      output: Standard output and error, as they came.
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
      Its exit status, None if it was stopped at the limit, and its standard output and error as they came.
    """
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    try:
        with process_group(command, if_orphaned=if_orphaned, cwd=directory, **streams) as process:
            output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        partial = error.output or b""
        return None, partial.decode(errors="replace") if isinstance(partial, bytes) else partial
    return process.returncode, output
