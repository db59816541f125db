"""The scheduler of this machine: what it runs for a span, whom it tells what became of that, and what it cleans up."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.retraining import alerts, span_run
from components.retraining.decisions import Outcome
from components.retraining.directory_lock import wait_until_free
from components.retraining.ledger import Entry, Ledger
from components.retraining.scheduler import Scheduler
from components.retraining.telling import Tell, Telling
from pipelines.config import PipelineConfig

_RECORD_LIMIT_S = 600
_COLLECT_LIMIT_S = 3600
_PYTHON = (sys.executable, "-m", "pipelines")


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


def _alert(pipeline: str, url: str, entries: Sequence[Entry], held: str) -> Iterator[Entry]:
    for entry in entries:
        alerts.post(url, alerts.message(pipeline, entry, held))
        yield entry


def _collect(config: PipelineConfig, arguments: Sequence[str], entries: Sequence[Entry]) -> Iterator[Entry]:
    """Collects garbage once for all these decisions, if any was made by a run."""
    if any(entry.state != "skipped" for entry in entries):
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
