"""What follows from what a run came to: the rules of the scheduler, without files, clocks and processes."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from components.evaluation.run_report import summary_line
from components.retraining.ledger import FINAL, Entry, State
from components.retraining.policy import RetrainingPolicy

BROKEN_EXAMPLES, DRIFTED_EXAMPLES = "examples", "drift"
"""What a report says is at fault, where it is no component."""
# One span may be odd; where no run of the next can begin either, something else is wrong.
_UNABLE_SPANS = 2
OF_NO_RUN: tuple[State, ...] = ("skipped", "forgotten")
"""States that no run led to."""
_NOT_LEARNED_FROM: tuple[State, ...] = ("quarantined", *OF_NO_RUN)


class CannotBeginError(ValueError):
    """A run refused to begin, and blamed no examples and no component for it; another try may end likewise."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
      report: What it reported; {} if it was killed or failed before it could.
      error: Why it failed if it did not say so in the report.
      is_begun: Whether it began at all.
    """

    report: dict[str, Any]
    error: str = ""
    is_begun: bool = True


def concluded(entry: Entry, outcome: Outcome, policy: RetrainingPolicy, now_s: float) -> Entry:
    """Returns the entry of a span after a run of it that ended by itself, or was killed for its time limit.

    Args:
      entry: The span's, as it was while the run was under way.
      outcome: How the run ended.
      policy: The rules.
      now_s: Seconds since the epoch.
    """
    report = outcome.report
    if report and report["state"] == "SUCCEEDED":
        state: State = "pushed" if any(verdict["pushed_to"] for verdict in _verdicts(report)) else "refused"
        return dataclasses.replace(entry, state=state, reason=summary_line(report), report=report)
    error = report.get("error") or outcome.error
    if (broken := broken_earlier_span(entry, report)) is not None:
        reason = f"run {entry.attempt} found that span {broken} of its window is broken; it is run without that"
        return dataclasses.replace(entry, state="waiting", reason=reason)
    if report.get("fault") == BROKEN_EXAMPLES:
        # Where no span can be named, it may be any of the window: that counts, or the next ones would go the same way.
        is_named = report.get("broken_span") is not None
        return dataclasses.replace(entry, state="quarantined", reason=error, report=report, blameless=is_named)
    if report.get("fault") == DRIFTED_EXAMPLES:  # no better another time; a world that has changed for good is to hold
        return dataclasses.replace(entry, state="quarantined", reason=error, report=report)
    failed = dataclasses.replace(entry, failures=entry.failures + 1, report=report, is_unable=not outcome.is_begun)
    if failed.failures >= policy.max_failures:
        reason = f"{failed.failures} runs failed, the last one so: {error}"
        return dataclasses.replace(failed, state="quarantined", reason=reason)
    wait_s = policy.wait_s(failed.failures)
    reason = f"run {failed.attempt} failed: {error}"
    return dataclasses.replace(failed, state="waiting", reason=reason, not_before_s=now_s + wait_s)


def broken_earlier_span(entry: Entry, report: dict[str, Any]) -> int | None:
    """Returns the span of an entry's window, other than its own, that a report says is broken; None without one."""
    broken = report.get("broken_span")
    return broken if report.get("fault") == BROKEN_EXAMPLES and broken != entry.span else None


def interrupted(entry: Entry, policy: RetrainingPolicy) -> Entry:
    """Returns the entry of a span during whose run the scheduler died."""
    entry = dataclasses.replace(entry, interruptions=entry.interruptions + 1)
    if entry.interruptions >= policy.max_interruptions:
        reason = f"the scheduler died during {entry.interruptions} runs of it; does one exhaust the machine?"
        return dataclasses.replace(entry, state="quarantined", reason=reason)
    return dataclasses.replace(entry, state="waiting", reason=f"the scheduler died during run {entry.attempt}")


def held_by(entries: Iterable[Entry], policy: RetrainingPolicy, released: int) -> str:
    """Returns why nothing more may be run; empty if something may.

    Args:
      entries: All of the ledger.
      policy: The rules.
      released: Number of the last decision that counts no more.
    """
    counted = [
        one
        for one in entries
        if one.state in FINAL and one.decision > released and one.state not in OF_NO_RUN and not one.blameless
    ]
    counted.sort(key=lambda entry: entry.decision)
    unable = [entry for entry in counted[-_UNABLE_SPANS:] if entry.is_unable]
    if len(unable) == _UNABLE_SPANS:
        return f"no run of spans {_listed(unable)} could begin, so it is hardly they that are at fault"
    last = counted[-policy.hold_after :] if policy.hold_after else []
    if len(last) < policy.hold_after or not last or any(entry.state == "pushed" for entry in last):
        return ""
    return f"nothing was pushed for {len(last)} spans in a row ({_listed(last)}; hold_after={policy.hold_after})"


def _listed(entries: Iterable[Entry]) -> str:
    return ", ".join(str(entry.span) for entry in entries)


def superseded(spans: Iterable[int], entries: Mapping[int, Entry], policy: RetrainingPolicy) -> dict[int, str]:
    """Returns which complete spans without an entry are too old to be run, each with the reason."""
    new = [span for span in spans if is_new(span, entries)]
    newest = newest_begun(entries)
    late = {span: f"it was complete only after span {newest} was begun" for span in new if span < newest}
    if policy.catch_up or not new:
        return late
    return late | {span: f"span {new[-1]} is newer, and catch_up is off" for span in new[:-1] if span not in late}


def is_new(span: int, entries: Mapping[int, Entry]) -> bool:
    """Whether a span is as if it had never been there."""
    return span not in entries or entries[span].state == "forgotten"


def freed(entries: Mapping[int, Entry], forgotten: int) -> list[Entry]:
    """Returns the spans, oldest first, that were skipped and would not be now that one is forgotten."""
    left = {span: entry for span, entry in entries.items() if span != forgotten}
    newest = newest_begun(left)
    return [entry for span, entry in sorted(left.items()) if entry.state == "skipped" and span > newest]


def newest_begun(entries: Mapping[int, Entry]) -> int:
    """Returns the newest span whose examples a model was made from, or is being made; -1 without one."""
    return max((span for span, entry in entries.items() if entry.state not in _NOT_LEARNED_FROM), default=-1)


def _verdicts(report: dict[str, Any]) -> list[dict[str, Any]]:
    verdicts = report["verdicts"].values() if "verdicts" in report else [report["verdict"]]
    return [verdict for verdict in verdicts if verdict]
