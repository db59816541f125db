"""Handles spans one after the other, the oldest first, and each to one final decision, whenever it is killed.

Everything that it knows is in the ledger, whose docstring has the states of a span. A span waits for those before it,
so that no model of older data is pushed after one of newer data; the number of its runs is limited, so it does not
block those behind it for ever.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from components.retraining import decisions
from components.retraining.decisions import CannotBeginError, Outcome, is_new
from components.retraining.ledger import FINAL, Entry, Ledger
from components.retraining.policy import RetrainingPolicy
from components.retraining.spans import SpanSource
from components.retraining.telling import Telling

_LOGGER = logging.getLogger(__name__)

Run = Callable[[Entry], Outcome]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scheduler:
    """What works on one ledger, whose lock its owner holds.

    Attributes:
      source: The spans.
      policy: The rules.
      ledger: What became of each span.
      run: Runs the pipeline on the span of an entry and returns when that has ended. It raises CannotBeginError if the
        run refuses to begin, which counts as a failure, and ValueError if it is not its time, which does not.
      telling: What follows each final decision: at least once, and more than once only where the scheduler dies
        meanwhile.
      now_s: The clock, in seconds since the epoch.
    """

    source: SpanSource
    policy: RetrainingPolicy
    ledger: Ledger
    run: Run
    telling: Telling
    now_s: Callable[[], float] = time.time

    def recover(self) -> None:
        """Concludes, or lets wait, what was left under way. Call it before `step`, and again where that has raised."""
        for entry in self.ledger.entries().values():
            if entry.state == "running":
                if report := read_report(self.ledger, entry):
                    self._conclude(entry, Outcome(report=report))
                else:
                    self._write(decisions.interrupted(entry, self.policy))

    def held(self) -> str:
        """Returns why nothing more is run; empty if more is."""
        return decisions.held_by(self.ledger.entries().values(), self.policy, self.ledger.released())

    def release(self) -> None:
        """Ends a hold: the decisions so far count no more."""
        if entries := self.ledger.entries():  # else there is no ledger yet
            self.ledger.release(max(entry.decision for entry in entries.values()))

    def retry(self, span: int) -> None:
        """Asks for a quarantined span to be run again; `step` of whoever holds the lock sees to it.

        Raises:
          ValueError: If it is not quarantined.
        """
        entry = self.ledger.entries().get(span)
        if entry is None or entry.state != "quarantined":
            state = entry.state if entry else "not in the ledger"
            raise ValueError(f"span {span} is {state}; only a quarantined one can be run again")
        self.ledger.ask(span, "retry")

    def forget(self, span: int, reason: str) -> None:
        """Asks for a span to be as if it had never been there, as one whose number was a mistake.

        Spans that were skipped since it was begun wait again. `step` of whoever holds the lock sees to it.

        Raises:
          ValueError: If there is nothing to forget, it is under way, or it is complete and would only be run again.
        """
        entries = self.ledger.entries()
        if is_new(span, entries):
            raise ValueError(f"span {span} is not in the ledger; there is nothing to forget")
        if entries[span].state == "running":
            raise ValueError(f"span {span} is running; wait until that has ended")
        if span in self.source.complete():
            directory = self.source.success_file(span).parent
            raise ValueError(f"span {span} would be run again; give {directory} another name or remove it first")
        self.ledger.ask(span, "forget", reason)

    def new(self, entries: Mapping[int, Entry]) -> list[Entry]:
        """Returns what would become entries of complete spans that are none yet.

        Raises:
          ValueError: If the spans cannot be listed.
        """
        complete = self.source.complete()
        old = decisions.superseded(complete, entries, self.policy)
        reasons = {span: f"new, and to be skipped: {reason}" for span, reason in old.items()}
        new = _new(entries, complete)
        return [dataclasses.replace(entry, reason=reasons.get(entry.span, entry.reason)) for entry in new]

    def step(self) -> bool:
        """Does the next thing that there is to do now; returns whether there was one.

        Raises:
          ValueError: If the spans cannot be listed, or a run cannot begin and may be able to another time.
          OSError: If the ledger cannot be written, or no process started.
        """
        if self.telling.tell(self.ledger, self.held(), self.now_s()):
            return True
        entries = self.ledger.entries()
        if asked := self.ledger.asked("retry"):
            self._let_again(min(asked), entries)
            return True
        if asked := self.ledger.asked("forget"):
            self._forget(min(asked), asked[min(asked)], entries)
            return True
        complete = self.source.complete()
        if old := decisions.superseded(complete, entries, self.policy):
            for late in _new(entries, old):
                self._write(dataclasses.replace(late, state="skipped", reason=old[late.span]))
            return True
        entry = None if self.held() else self._next(entries, complete)
        if entry is None or entry.not_before_s > self.now_s():
            return False
        if entry.span in complete:
            self._run(entry)
        else:
            reason = f"it is not complete any more; before that: {entry.reason}"
            self._write(dataclasses.replace(entry, state="quarantined", reason=reason, blameless=True))
        return True

    def _let_again(self, span: int, entries: Mapping[int, Entry]) -> None:
        entry = entries.get(span)
        if entry is not None and entry.state == "quarantined":  # else a scheduler died right after it had let it
            newest = decisions.newest_begun(entries)
            fresh = Entry(span=span, state="waiting", reason=f"released from quarantine ({entry.reason})")
            if span < newest:
                reason = f"{fresh.reason}, but span {newest} was begun: later windows take it"
                fresh = dataclasses.replace(fresh, state="skipped", reason=reason)
            self._write(dataclasses.replace(fresh, attempt=entry.attempt, decision=entry.decision))
        self.ledger.answer(span, "retry")

    def _forget(self, span: int, reason: str, entries: Mapping[int, Entry]) -> None:
        if not is_new(span, entries):  # else a scheduler died right after it had forgotten it
            for freed in decisions.freed(entries, span):
                why = f"span {span} was forgotten; before that skipped: {freed.reason}"
                self._write(dataclasses.replace(freed, state="waiting", reason=why))
            self._write(Entry(span=span, state="forgotten", reason=reason, attempt=entries[span].attempt))
        self.ledger.answer(span, "forget")

    def _next(self, entries: Mapping[int, Entry], complete: list[int]) -> Entry | None:
        waiting = [entry for entry in entries.values() if entry.state == "waiting"]
        return min([*waiting, *_new(entries, complete)], key=lambda entry: entry.span, default=None)

    def _run(self, entry: Entry) -> None:
        begun = dataclasses.replace(
            entry, state="running", reason="under way", attempt=entry.attempt + 1, is_unable=False
        )
        self.ledger.report_file(begun).unlink(missing_ok=True)  # of a run before the entry was moved away
        self._write(begun)
        try:
            outcome = self.run(begun)
        except CannotBeginError as error:
            self._conclude(begun, Outcome(report={}, error=str(error), is_begun=False))
            if self.ledger.entries()[begun.span].state == "waiting":
                raise
            return
        except BaseException as error:  # stopped by a signal, or it is not its time: the span is not to blame
            if report := read_report(self.ledger, begun):  # the run had ended, but for the end of its process
                self._conclude(begun, Outcome(report=report))
                raise
            why = str(error) if isinstance(error, Exception) else "the scheduler was stopped"
            reason = f"run {begun.attempt} was not ended: {why}"
            self._write(dataclasses.replace(begun, state="waiting", reason=reason))
            raise
        self._conclude(begun, outcome)

    def _conclude(self, entry: Entry, outcome: Outcome) -> None:
        broken = decisions.broken_earlier_span(entry, outcome.report)
        if broken is not None:  # skipped before, and so never looked at, or good once
            earlier = self.ledger.entries().get(broken) or Entry(span=broken, state="skipped", reason="never run")
            if earlier.state != "quarantined":
                reason = f"{outcome.report['error']}; before that {earlier.state}: {earlier.reason}"
                self._write(dataclasses.replace(earlier, state="quarantined", reason=reason, blameless=True))
        self._write(decisions.concluded(entry, outcome, self.policy, self.now_s()))

    def _write(self, entry: Entry) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now_s()))
        entries = self.ledger.entries()
        if (before := entries.get(entry.span)) is not None and before.untold:
            self.ledger.keep_untold(before)
        entry = dataclasses.replace(entry, at=at, untold=())
        if entry.state in FINAL:
            made = max((other.decision for other in entries.values()), default=0)
            entry = dataclasses.replace(entry, decision=made + 1, untold=self.telling.names)
        self.ledger.write(entry)
        _LOGGER.info("span %d, run %d: %s: %s", entry.span, entry.attempt, entry.state, entry.reason)


def _new(entries: Mapping[int, Entry], spans: Iterable[int]) -> list[Entry]:
    """What becomes the entries of those spans that are new; one that was forgotten goes on with its numbers."""
    none = Entry(span=0, state="forgotten", reason="")
    known = {span: entries.get(span, none) for span in spans if is_new(span, entries)}
    return [
        Entry(span=span, state="waiting", reason="new", attempt=before.attempt, decision=before.decision)
        for span, before in known.items()
    ]


def read_report(ledger: Ledger, entry: Entry) -> dict[str, Any]:
    """Returns what the last run of an entry reported; {} if it did not come so far."""
    file = ledger.report_file(entry)
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
