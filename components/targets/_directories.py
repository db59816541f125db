"""Directories of a compiler's run: the one that it runs in, and the one where what it wrote is kept."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.targets._failures import Kind, explaining
from components.targets._run import Run


@contextlib.contextmanager
def work_directory(kinds: Mapping[str, Kind]) -> Iterator[Path]:
    """Gives an empty directory, which is removed afterwards.

    Raises:
      CompileError: If there cannot be one.
    """
    with explaining("a temporary directory", kinds, "unwritable"):
        directory = tempfile.TemporaryDirectory(prefix="tfx-qat-", ignore_cleanup_errors=True)
    with directory as path:
        yield Path(path)


def require_writable(directory: Path, kinds: Mapping[str, Kind]) -> None:
    """Makes a directory where it is missing, and checks, before anything runs for long, that files can be made in it.

    Raises:
      CompileError: If they cannot.
    """
    with explaining(f"directory {directory}", kinds, "unwritable"):
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()


def keep(run: Run, number: int, directory: Path, suffix: str, kinds: Mapping[str, Kind]) -> None:
    """Writes what a run said, and those of its files that say something, into a directory.

    Args:
      run: The run.
      number: Its number among the attempts.
      directory: Of `require_writable`.
      suffix: What the names of such files end with.
      kinds: The target's kinds of failure.

    Raises:
      CompileError: If that cannot be written.
    """
    with explaining(f"directory {directory}", kinds, "unwritable"):
        (directory / f"attempt_{number}.txt").write_text(run.output, errors="replace")
        for name, content in run.files.items():
            if name.endswith(suffix):
                (directory / f"attempt_{number}_{name}").write_bytes(content)
