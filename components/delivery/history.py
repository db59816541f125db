"""Which version was latest when: one entry for each time that the pointer was to move.

Entries are names of files that are only ever added, so none is lost whoever writes at once, and listing a directory is
reading all of them. The newest is what the pointer must say. Numbers, not clocks, order them: an entry's is one more
than the greatest that its writer saw, so who began later wins however wrong its clock is. Two that saw the same are
ordered by the rest of their names, which all readers do alike; a rollback wins over a push.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Sequence

PUSH, ROLLBACK = "push", "rollback"
_NAME = re.compile(r"(\d{6,})\.(push|rollback)\.([0-9a-f]{12})\.([0-9a-f]{12})\.json")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Entry:
    """A move of the pointer.

    Attributes:
      number: Its place, from 1.
      action: "push" or "rollback".
      version: The version that became latest.
      model: The first 12 digits of that version's `model_sha256`.
    """

    number: int
    action: str
    version: str
    model: str

    @property
    def name(self) -> str:
        """The name of its file.

        >>> Entry(number=7, action="push", version="0123456789ab", model="ba9876543210").name
        '000007.push.0123456789ab.ba9876543210.json'
        """
        return f"{self.number:06}.{self.action}.{self.version}.{self.model}.json"


def entries(names: Iterable[str]) -> list[Entry]:
    """Returns the entries among names of files, the newest last."""
    matches = filter(None, map(_NAME.fullmatch, names))
    return sorted(Entry(number=int(m[1]), action=m[2], version=m[3], model=m[4]) for m in matches)


def following(history: Sequence[Entry], action: str, version: str, model: str) -> Entry:
    """Returns the entry that comes after a history."""
    number = history[-1].number + 1 if history else 1
    return Entry(number=number, action=action, version=version, model=model)


def version_replaced(history: Sequence[Entry], move: Entry) -> str:
    """Returns the version that was latest before a move of the pointer; empty if there was none."""
    return next((before.version for before, entry in itertools.pairwise(history) if entry == move), "")


def withdrawn(history: Sequence[Entry]) -> set[str]:
    """Returns the versions that were rolled back from, and not pushed or rolled back to since."""
    return {entry.version for entry in history} - set(_standing(history))


def version_before(history: Sequence[Entry], latest: str, there: Collection[str]) -> str:
    """Returns the version that a rollback goes to when it is not told.

    That is the one which was latest before `latest` was pushed. A version that was rolled back from is no candidate any
    more: after pushes of 1, 2, 3 and a rollback to 2, the one before is 1.

    Args:
      history: All entries, the newest last.
      latest: The version that the pointer names; may not be the newest entry's, if a push died in between.
      there: Versions that can be had.

    Returns:
      Its name; empty if there is none.
    """
    kept = _standing(history)
    before = kept[: kept.index(latest)] if latest in kept else kept
    return next((version for version in reversed(before) if version in there), "")


def _standing(history: Sequence[Entry]) -> list[str]:
    """The versions that nobody rolled back from, each once, in the order in which they became the latest."""
    kept: list[str] = []
    for entry in history:
        if entry.action == ROLLBACK and entry.version in kept:
            del kept[kept.index(entry.version) + 1 :]
        else:
            kept = [version for version in kept if version != entry.version]
            kept.append(entry.version)
    return kept
