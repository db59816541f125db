"""A directory that a command writes: a new one, there whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def require_new(output: Path) -> None:
    """Raises ValueError if there is something at a path, or no directory can be made there."""
    if os.path.lexists(output):
        raise ValueError(f"--output {output}: exists already; name a new directory")
    parent = _existing_parent(output)
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ValueError(f"--output {output}: got {parent}, expected a directory that can be written to")


@contextlib.contextmanager
def writing(output: Path) -> Iterator[Path]:
    """Gives an empty directory that gets its name when the block ends well, and is removed if it does not.

    Args:
      output: The name, for which `require_new` holds.
    """
    with tempfile.TemporaryDirectory(dir=_existing_parent(output), prefix=".tfx-qat-") as directory:
        partial = Path(directory) / output.name
        partial.mkdir()
        yield partial
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(output)


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))
