"""The sha256 by which files and directories are known."""

import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes; of a directory, of its files' relative paths and digests, sorted."""
    if path.is_file():
        found = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
        return found.hexdigest()
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("\n".join(f"{name} {sha256(path / name)}" for name in files).encode()).hexdigest()
