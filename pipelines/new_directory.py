"""A directory that a command writes: a new one, there whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Of a disk that takes no more.
_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


def require_new(output: Path) -> None:
    """Raises ValueError if there is something at a path, or no directory can be made and written there."""
    if os.path.lexists(output):
        raise ValueError(f"--output {output}: exists already; name a new directory")
    parent = _existing_parent(output)
    with _telling(output):
        tempfile.TemporaryDirectory(dir=parent, prefix=".tfx-qat-").cleanup()


@contextlib.contextmanager
def writing(output: Path) -> Iterator[Path]:
    """Gives an empty directory that gets its name when the block ends well, and is removed if it does not.

    Args:
      output: The name, for which `require_new` holds.

    Raises:
      ValueError: If the file system refuses it, as a disk that is full does.
    """
    with _telling(output):
        made = tempfile.TemporaryDirectory(dir=_existing_parent(output), prefix=".tfx-qat-")
    with made as directory, _telling(output, Path(directory)):
        partial = Path(directory) / output.name
        partial.mkdir()
        yield partial
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(output)


@contextlib.contextmanager
def _telling(output: Path, below: Path | None = None) -> Iterator[None]:
    """Says of errors of the file system that they are of the output: of all, or of full disks below a directory."""
    try:
        yield
    except OSError as error:
        elsewhere = below is not None and error.filename and below not in Path(error.filename).parents
        if below is not None and (error.errno not in _OF_DISKS or elsewhere):
            raise
        raise ValueError(f"--output {output}: cannot be written: {error}") from error


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))
