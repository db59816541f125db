"""Files of a push: written in its own directory, a stage, and put in place at once."""

import os

from tfx.dsl.io import fileio

from components.delivery.manifest import FileDigest


def staged(stage: str, path: str) -> str:
    """Where a file of the version lies in a stage."""
    return os.path.join(stage, "files", path)


def put(source: str, destination: str) -> None:
    """Puts a file that was written in a stage in its place, in one step."""
    fileio.makedirs(os.path.dirname(destination))
    fileio.rename(source, destination, overwrite=True)


def write(stage: str, destination: str, text: str) -> None:
    """Writes a text by way of a stage, so that nobody reads half of it."""
    partial = os.path.join(stage, "partial")
    with fileio.open(partial, "w") as file:
        file.write(text)
    put(partial, destination)


def read(path: str) -> str:
    """Returns the text in a file."""
    with fileio.open(path, "r") as file:
        text: str = file.read()
    return text


def digest(path: str) -> FileDigest:
    """Returns size and hash of a file, by reading it."""
    with fileio.open(path, "rb") as file:
        return FileDigest.of(file)


def names(directory: str) -> list[str]:
    """The names in a directory, none if it is not there. Object stores mark directories by a slash."""
    try:
        return [name.rstrip("/") for name in fileio.listdir(directory)]
    except fileio.NotFoundError:
        return []
