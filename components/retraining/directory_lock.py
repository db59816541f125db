"""A directory that one process at a time holds."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

_FILE = ".lock"


class HeldError(ValueError):
    """Another process holds the directory."""


@contextlib.contextmanager
def directory_lock(directory: Path, name: str, advice: str, held: str) -> Iterator[None]:
    """Makes a directory and holds it; the operating system lets go of it when the process ends, however it ends.

    Args:
      directory: The directory.
      name: What to call it where it cannot be written.
      advice: What to do then.
      held: What to say where another process holds it.

    Raises:
      ValueError: If it cannot be written.
      HeldError: If another process holds it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / _FILE).open("w")
    except OSError as error:
        raise ValueError(f"{name} cannot be written: {error.strerror}; {advice}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError(held) from error
        yield


def wait_until_free(directory: Path) -> None:
    """Returns once nobody holds a directory, as a run that dies with its scheduler does a moment longer."""
    file = directory / _FILE
    if file.exists():
        with file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
