"""The scheduler of this machine: what it runs for a span, whom it tells what became of that, and what it cleans up."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.retraining import alerts, span_run
from components.retraining.decisions import OF_NO_RUN, Outcome
from components.retraining.directory_lock import wait_until_free
from components.retraining.ledger import Entry, Ledger
from components.retraining.scheduler import Scheduler
from components.retraining.telling import Tell, Telling
from pipelines.config import PipelineConfig

_RECORD_LIMIT_S = 600
_COLLECT_LIMIT_S = 3600
_PYTHON = (sys.executable, "-m", "pipelines")

_LOGGER = logging.getLogger(__name__)


def scheduler_of(config: PipelineConfig, arguments: Sequence[str], alert_url: str) -> Scheduler:
    """Returns the scheduler of a config.

    Args:
      config: The config.
      arguments: The config's name and the options of `run` that made it.
      alert_url: The webhook that is told each decision; "" for none.

    Raises:
      ValueError: If the config has no spans, root or spans are on no local disk, or the webhook is none.
    """
    if config.spans is None:
        raise ValueError(f"config {config.name!r} has no spans; give it some, as spans=SpanSource(pattern=...)")
    if "://" in config.root:
        raise ValueError(f"root {config.root!r} is no local directory; schedule it on a service instead")
    if "://" in config.spans.base:
        raise ValueError(f"spans: {config.spans.base} is no local directory; schedule it on a service instead")
    tell: dict[str, Tell] = {"the record in ML Metadata": lambda entries, held: _record(config, entries, held)}
    if alert_url:
        alerts.require_webhook(alert_url)
        tell["the webhook"] = lambda entries, held: _alert(config.name, alert_url, entries, held)
    if config.retraining.keep_runs:
        tell["the garbage collection"] = lambda entries, _: _collect(config, arguments, entries)
    ledger = Ledger(Path(config.spans_dir))

    def run(entry: Entry) -> Outcome:
        wait_until_free(Path(config.root))
        asked = ["--span", str(entry.span), "--report", str(ledger.report_file(entry))]
        asked += ["--again"] if entry.attempt > 1 else []
        return span_run.run_span([*_PYTHON, "run", *arguments, *asked], entry, ledger, config.retraining.run_limit_s)

    policy = config.retraining
    return Scheduler(source=config.spans, policy=policy, ledger=ledger, run=run, telling=Telling(tell, policy))


def work(scheduler: Scheduler, poll_s: float | None) -> None:
    """Does all that there is to do, and then returns, or looks again every so often until it is stopped.

    One that looks again outlives what may pass: directories that cannot be listed or are not there yet, a full disk, a
    run by hand in the same root. It waits twice as long after each such look, up to the longest wait of the policy.

    Args:
      scheduler: The scheduler, whose ledger is locked.
      poll_s: Seconds between looks; None for one look.

    Raises:
      ValueError: If there is but one look, and it cannot be finished.
    """
    said: list[str] = []
    troubles, wait_s = 0, poll_s
    while True:
        try:
            scheduler.recover()
            said = _say(scheduler, said)
            while scheduler.step():
                pass
            said = _say(scheduler, said)
            troubles, wait_s = 0, poll_s
        except (ValueError, OSError) as error:
            if poll_s is None:
                raise ValueError(str(error)) from error
            troubles += 1
            wait_s = min(poll_s * 2.0 ** min(troubles, 60), max(poll_s, scheduler.policy.backoff_limit_s))
            _LOGGER.warning("%s; looks again in %.0f s", error, wait_s)
        if wait_s is None:
            return
        time.sleep(wait_s)


def _say(scheduler: Scheduler, said: Sequence[str]) -> list[str]:
    """Warns of what is not as it should be, unless that was said already; returns what is so now."""
    warnings = scheduler.source.overlooked()
    if held := scheduler.held():
        warnings.append(f"held: {held}; run `schedule --resume` once that is looked into")
    for warning in warnings:
        if warning not in said:
            _LOGGER.warning("%s", warning)
    return warnings


def status(scheduler: Scheduler) -> Iterator[str]:
    """Yields a line for each span that is there or was, and what keeps others from being run."""
    entries = scheduler.ledger.entries()
    try:
        new, warnings = scheduler.new(entries), scheduler.source.overlooked()
    except ValueError as error:
        new, warnings = [], [str(error)]
    entries |= {entry.span: entry for entry in new}
    for entry in sorted(entries.values(), key=lambda entry: entry.span):
        drift = entry.report.get("drift")
        shown = "" if drift is None else f"drift {drift:.4f}  "
        yield f"{entry.span:>8}  {entry.at:<20}  {entry.state:<11}  {entry.attempt} run(s)  {shown}{entry.reason}"
    yield from warnings
    if held := scheduler.held():
        yield f"held: {held}{os.linesep}--resume goes on"


def _alert(pipeline: str, url: str, entries: Sequence[Entry], held: str) -> Iterator[Entry]:
    for entry in entries:
        alerts.post(url, alerts.message(pipeline, entry, held))
        yield entry


def _collect(config: PipelineConfig, arguments: Sequence[str], entries: Sequence[Entry]) -> Iterator[Entry]:
    """Collects garbage once for all these decisions, if any was made by a run."""
    if any(entry.state not in OF_NO_RUN for entry in entries):
        wait_until_free(Path(config.root))
        command = [*_PYTHON, "gc", *arguments, "--keep", str(config.retraining.keep_runs)]
        with _program(command, "", _COLLECT_LIMIT_S):
            pass
    yield from entries


def _record(config: PipelineConfig, entries: Sequence[Entry], held: str) -> Iterator[Entry]:
    """Writes decisions into ML Metadata, and to the runs that they are about, where these are known."""
    decisions = {
        alerts.decision_id(config.name, entry): {
            "pipeline": config.name,
            "span": entry.span,
            "attempt": entry.attempt,
            "decision": entry.state,
            "decision_reason": entry.reason,
            "decided_at": entry.at,
            "hold_reason": held,
        }
        for entry in entries
    }
    runs = [entry.report.get("run", "") for entry in entries]
    asked = json.dumps([[one, run, facts] for (one, facts), run in zip(decisions.items(), runs, strict=True)])
    command = [sys.executable, "-m", "pipelines.decision_record", config.metadata_url]
    with _program(command, asked, _RECORD_LIMIT_S) as recorded:
        yield from (entry for one, entry in zip(decisions, entries, strict=True) if one in recorded)


@contextlib.contextmanager
def _program(command: Sequence[str], given: str, limit_s: float) -> Iterator[list[str]]:
    """Runs a program and gives the lines that it printed, also where it failed.

    Raises:
      OSError: At the end of the block, if it failed, with the last line of what it said, or took longer than the limit.
    """
    try:
        done = subprocess.run(
            command, input=given, check=False, timeout=limit_s, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:  # whose text has the command, and that may have a secret
        raise OSError(f"killed after {limit_s:,.0f} s") from None
    yield done.stdout.splitlines()
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise OSError(f"ended with status {done.returncode}; its last words: {said[-1]}")
