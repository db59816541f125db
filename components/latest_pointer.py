"""The file that names the latest version of a push destination: how it follows the history without a lock.

Each move adds its entry to the history, takes from all others what they are about to put in place, and then moves the
pointer to the newest entry until that is the one that it moved it to. A move that was stopped before it put its own in
place finds it gone, and looks at the history again; one that is killed has undone no later one.
"""

import contextlib
import os
from collections.abc import Callable

from tfx.dsl.io import fileio

from components import pushed_files
from components.delivery.history import Entry

LATEST_FILE = "latest"
INCOMING_DIR = ".incoming"
"""Where each move has a directory of its own, a stage."""

# In a stage, what is about to become the pointer.
_POINTER_FILE = "pointer"
# Every other push or rollback at the same time costs one or two.
_TRIES = 1000


def follow(uri: str, stage: str, newest: Callable[[], Entry]) -> Entry:
    """Moves the pointer to the newest entry of the history.

    Args:
      uri: The destination.
      stage: The directory of the move, which has its entry in the history.
      newest: Reads the history, and returns its newest entry.

    Returns:
      The entry.

    Raises:
      OSError: If others move it again and again.
    """
    _recall(uri, stage)
    for _ in range(_TRIES):
        entry = newest()
        if _put(uri, stage, entry, newest) and newest() == entry:
            return entry
    raise OSError(f"{uri}: others moved {LATEST_FILE} {_TRIES} times meanwhile; push or roll back again")


def _put(uri: str, stage: str, entry: Entry, newest: Callable[[], Entry]) -> bool:
    """Moves the pointer; returns False if a later move recalled it, or has come since the history was read."""
    pointer = os.path.join(stage, _POINTER_FILE)
    with fileio.open(pointer, "w") as file:
        file.write(f"{entry.version}\n")
    if newest() != entry:  # whoever adds to the history after this finds this pointer
        return False
    try:
        pushed_files.put(pointer, os.path.join(uri, LATEST_FILE))
    except fileio.NotFoundError:
        if fileio.exists(pointer):  # it is the destination that is not there
            raise
        return False
    return True


def _recall(uri: str, stage: str) -> None:
    """Removes what earlier moves are about to put in place."""
    directory = os.path.join(uri, INCOMING_DIR)
    for name in pushed_files.names(directory):
        pointer = os.path.join(directory, name, _POINTER_FILE)
        if os.path.join(directory, name) != stage and fileio.exists(pointer):
            with contextlib.suppress(fileio.NotFoundError):
                fileio.remove(pointer)
