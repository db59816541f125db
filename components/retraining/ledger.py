"""What became of each span: one JSON file each, replaced at once.

{directory}/
  {span}.json              the entry of a span that was begun
  {span}.{attempt}.report  what a run of it came to, written by the run as its last act
  {span}.{attempt}.log     what that run printed
  {span}.{decision}.untold a decision of which somebody is to be told, though its span's entry has changed since
  {span}.retry             somebody asks for it to be run again
  {span}.forget            somebody asks for it to be forgotten, and why
  released.json            up to which decision a hold was released
  .lock                    held by the scheduler that is at work

States of a span, and who moves it:

    (no entry) --begin--> running --conclude--> pushed | refused | quarantined
                             |  ^
              failed, or the |  | begin, once `not_before_s` has passed
              scheduler died v  |
                           waiting --give up--> quarantined --retry--> waiting, or skipped if it is too old by now
    (no entry) --too old--> skipped --forget, of a later one that was begun--> waiting
    waiting | pushed | refused | quarantined | skipped --forget--> forgotten, which is as no entry but for its numbers

`begin` is written before a run starts, so a scheduler that finds `running` when it starts knows that another one died.
It then looks for the run's report, as does one that is stopped: with one, the run had ended and only the entry is
behind; without one, the run was killed with its scheduler, or before it could say, and is begun anew. What it had done
by then is not done twice: components that ended come from TFX's cache, and a push names versions by their content.
`pushed`, `refused`, `quarantined`, `skipped` and `forgotten` are final. An entry that is final and still to be told
about says so by `untold`.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from components.retraining.directory_lock import directory_lock

State = Literal["running", "waiting", "pushed", "refused", "quarantined", "skipped", "forgotten"]
FINAL: tuple[State, ...] = ("pushed", "refused", "quarantined", "skipped", "forgotten")
Request = Literal["retry", "forget"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What became of a span so far.

    Attributes:
      span: Its number.
      state: As the module's docstring says.
      reason: Of the state, for people.
      at: When it came into this state, by UTC.
      attempt: Number of the last run of it, from 1; 0 if there was none.
      failures: How many of its runs failed since it was last released.
      interruptions: How many ended with the scheduler's death, likewise.
      not_before_s: When it may be run again, in seconds since the epoch.
      decision: Number of the decision that made it final, from 1, in the order in which they were made; 0 before. One
        that is run again keeps it until the next, so that no number is ever that of two decisions.
      blameless: Whether its own examples were broken, so that the decision says nothing of models, machines and the
        world.
      is_unable: Whether its last run failed before it began.
      report: What the last run came to, as it reported; {} if it did not.
      untold: Who is still to be told of the final state; one who could not be is told later.
    """

    span: int
    state: State
    reason: str
    at: str = ""
    attempt: int = 0
    failures: int = 0
    interruptions: int = 0
    not_before_s: float = 0.0
    decision: int = 0
    blameless: bool = False
    is_unable: bool = False
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    untold: tuple[str, ...] = ()


class Ledger:
    """The entries in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the ledger for one scheduler; the operating system lets go of it however the process ends.

        Raises:
          ValueError: If another scheduler holds it, or the directory cannot be written.
        """
        held = f"another scheduler is at work in {self.directory}; leave the work to it"
        with directory_lock(self.directory, str(self.directory), "choose another root", held):
            yield

    def entries(self) -> dict[int, Entry]:
        """Returns all entries by span, in the order of spans.

        Raises:
          ValueError: If one cannot be read; whatever wrote it, it was not a ledger.
        """
        paths = (path for path in self.directory.glob("*.json") if path.stem.isdigit())
        entries = [_read(path) for path in paths]
        return {entry.span: entry for entry in sorted(entries, key=lambda entry: entry.span)}

    def write(self, entry: Entry) -> None:
        """Replaces the entry of a span, at once and for good."""
        replace_file(self.directory / f"{entry.span}.json", _text(entry))

    def keep_untold(self, entry: Entry) -> None:
        """Keeps a decision of which somebody is to be told, as the entry of its span is about to be replaced."""
        replace_file(self._untold_file(entry), _text(entry))

    def untold(self, name: str) -> list[Entry]:
        """Returns the decisions, the oldest first, of which somebody is to be told."""
        kept = [_read(path) for path in self.directory.glob("*.untold")]
        found = {entry.decision: entry for entry in [*self.entries().values(), *kept] if name in entry.untold}
        return [entry for _, entry in sorted(found.items())]

    def told(self, entry: Entry, name: str) -> None:
        """Notes that somebody was told of a decision."""
        left = dataclasses.replace(entry, untold=tuple(one for one in entry.untold if one != name))
        kept = self._untold_file(entry)
        if not kept.exists():
            self.write(left)
        elif left.untold:
            self.keep_untold(left)
        else:
            kept.unlink()

    def _untold_file(self, entry: Entry) -> Path:
        return self.directory / f"{entry.span}.{entry.decision}.untold"

    def quarantined(self) -> list[int]:
        """Returns the spans that are quarantined; none where there is no ledger."""
        return [span for span, entry in self.entries().items() if entry.state == "quarantined"]

    def report_file(self, entry: Entry) -> Path:
        """Returns the file of what the entry's last run came to."""
        return self.directory / f"{entry.span}.{entry.attempt}.report"

    def log_file(self, entry: Entry) -> Path:
        """Returns the file of what the entry's last run printed."""
        return self.directory / f"{entry.span}.{entry.attempt}.log"

    def released(self) -> int:
        """Returns the number of the last decision that a release of a hold has covered; 0 without one."""
        path = self.directory / "released.json"
        return int(json.loads(path.read_text())["decision"]) if path.is_file() else 0

    def ask(self, span: int, request: Request, reason: str = "") -> None:
        """Asks something of whoever works on the ledger, now or next."""
        replace_file(self._request_file(span, request), reason)

    def asked(self, request: Request) -> dict[int, str]:
        """Returns of which spans that is asked, and why."""
        paths = [path for path in self.directory.glob(f"*.{request}") if path.stem.isdigit()]
        return {int(path.stem): path.read_text(encoding="utf-8") for path in sorted(paths)}

    def answer(self, span: int, request: Request) -> None:
        """Drops a request."""
        self._request_file(span, request).unlink(missing_ok=True)

    def _request_file(self, span: int, request: Request) -> Path:
        return self.directory / f"{span}.{request}"

    def release(self, decision: int) -> None:
        """Lets decisions up to that one hold nothing any more."""
        replace_file(self.directory / "released.json", json.dumps({"decision": decision}) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Writes a file so that at any moment it is there as it was or as it will be, also after a loss of power."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _text(entry: Entry) -> str:
    return json.dumps(dataclasses.asdict(entry), indent=2, sort_keys=True) + "\n"


def _read(path: Path) -> Entry:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Entry(**{**fields, "untold": tuple(fields["untold"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no entry of a ledger ({error}); move it away, and its span is run anew") from error
