"""Twenty spans of real digits, some broken, under a scheduler that is killed again and again."""

import collections
import dataclasses
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from digit_spans import BROKEN, CORRUPT, EMPTY, SHIFTED, UNLABELLED, write_span
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.retraining.ledger import FINAL, Entry, Ledger
from pipelines.configs import load_config
from pipelines.metadata import OUTPUT_EVENTS
from pipelines.metadata_opening import open_store

from conftest_e2e import command

_SPANS = range(1, 21)
# A span during whose first run the scheduler is killed, and when: as the run's log says, or its report is there.
_KILLS = {
    1: "done  Transform",
    4: "done  QuantizedEvaluator",
    8: "\nblessed  ",
    10: "report",
    CORRUPT: "",
    17: "done  QuantizeTrainer",
}
_LIMIT_S = 3 * 3600
_WRONG = {
    CORRUPT: "cut in the middle of a record",
    UNLABELLED: "no labels",
    SHIFTED: "ten times as bright",
    EMPTY: "no examples",
}


def _schedule(base: Path, *options: str) -> list[str]:
    return command(
        "schedule", *options, "stream", "--root", str(base), "--spans", f"{base}/data/span-{{SPAN:3}}/*.tfrecord"
    )


def _ended(ledger: Ledger) -> set[int]:
    return {span for span, entry in ledger.entries().items() if entry.state in FINAL}


def _is_at(ledger: Ledger, span: int, text: str) -> bool:
    first = Entry(span=span, state="running", reason="", attempt=1)
    if text == "report":
        return ledger.report_file(first).exists()
    log = ledger.log_file(first)
    return log.exists() and text in log.read_text()


def _watch_until(base: Path, reached: Callable[[], bool]) -> None:
    """Lets a scheduler watch until then, and kills it."""
    with (base / "scheduler.log").open("a") as log:
        process = subprocess.Popen(_schedule(base, "--watch", "--resume", "--poll-s", "0.5"), stderr=log, stdout=log)
        deadline = time.monotonic() + _LIMIT_S
        while not reached() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (base / "scheduler.log").read_text()


def soak(base: Path, spans: list[int], kills: dict[int, str]) -> dict[int, Entry]:
    """Lets spans arrive one after the other and the scheduler die; returns what became of each span."""
    ledger = Ledger(base / "spans")
    for span in spans:
        write_span(base / "data", span)
        if span in kills:
            _watch_until(base, lambda span=span: _is_at(ledger, span, kills[span]) or span in _ended(ledger))
    while True:
        done = subprocess.run(
            _schedule(base, "--resume"), check=False, capture_output=True, text=True, timeout=_LIMIT_S
        )
        assert done.returncode in (0, 3), done.stderr
        if _ended(ledger) == set(spans):
            return ledger.entries()
        time.sleep(1)  # until a span may be run again


@pytest.mark.long
def test_retraining_handles_each_span_once_and_pushes_no_worse_model_when_its_scheduler_is_killed(
    tmp_path: Path,
) -> None:
    entries = soak(tmp_path, list(_SPANS), _KILLS)
    check(tmp_path, entries)
    reasons = {span: entry.reason for span, entry in entries.items() if entry.state == "quarantined"}
    assert sorted(reasons) == sorted(BROKEN)
    assert "is corrupt after record 45" in reasons[CORRUPT]
    assert "feature 'label' is missing" in reasons[UNLABELLED]
    assert "image: Unexpectedly high value" in reasons[SHIFTED]
    assert "its TFRecord files are empty" in reasons[EMPTY]
    print(_table(entries).replace(f"{tmp_path}/", ""), check_disk(tmp_path), sep="\n\n")


def check(base: Path, entries: dict[int, Entry]) -> None:
    """Every span has one decision and one report, and each model that was pushed is at least as good as the last."""
    assert sorted(entry.decision for entry in entries.values()) == list(range(1, len(entries) + 1))
    for span, entry in entries.items():
        assert len(list((base / "spans").glob(f"{span}.*.report"))) == 1, span
        broken = {*BROKEN} & {*entry.report["spans"]} - {span}
        assert not broken, f"{broken} in the window of {span}"
    pushed = [entry for entry in entries.values() if entry.state == "pushed"]
    for entry in pushed[1:]:
        (gate,) = [text for text in entry.report["verdict"]["reasons"] if "vs last_blessed" in text]
        figures = re.search(r"holds: .*accuracy is ([0-9.]+), last_blessed ([0-9.]+)", gate)
        assert figures, gate
        assert float(figures[1]) >= float(figures[2])
    moves = [json.loads(file.read_text())["version"] for file in sorted((base / "pushed" / "history").iterdir())]
    assert moves == [Path(entry.report["verdict"]["pushed_to"]).name for entry in pushed]


def check_disk(base: Path) -> str:
    """All that a pushed model was made from is there, and of older runs nothing else; returns that in numbers."""
    config = dataclasses.replace(load_config("stream"), root=str(base))
    store = open_store(config.metadata_url)
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts() if config.pipeline_root in artifact.uri}
    executions = store.get_executions()
    made_by, made_of = collections.defaultdict(set), collections.defaultdict(set)
    for event in store.get_events_by_execution_ids([execution.id for execution in executions]):
        if event.type in OUTPUT_EVENTS:
            made_by[event.artifact_id].add(event.execution_id)
        else:
            made_of[event.execution_id].add(event.artifact_id)
    left = [one.id for one in artifacts.values() if one.custom_properties["pushed"].int_value]
    assert left
    ancestry: set[int] = set()
    while left:
        artifact = left.pop()
        ancestry.add(artifact)
        left += [one for execution in made_by[artifact] for one in made_of[execution] if one not in ancestry]
    for artifact in ancestry & {*artifacts}:
        assert Path(artifacts[artifact].uri).exists(), artifacts[artifact]
    # Nothing is made from the verdict of the examples, which a run has from the first to the last.
    anomalies = sorted(
        (one for one in artifacts.values() if one.type == "ExampleAnomalies" and "/ExampleValidator/" in one.uri),
        key=lambda one: one.id,
    )
    for artifact in anomalies[: -config.retraining.keep_runs - len(BROKEN)]:
        assert not Path(artifact.uri).exists(), artifact
    kept = [artifact for artifact in artifacts.values() if artifact.state == mlmd.Artifact.LIVE]
    size = sum(file.stat().st_size for file in Path(config.pipeline_root).rglob("*") if file.is_file())
    return (
        f"{len(executions):,} executions made {len(artifacts):,} artifacts, of which {len(kept):,} are left, in"
        f" {size / 1e6:.1f} MB"
    )


def _table(entries: dict[int, Entry]) -> str:
    """What became of each span, in Markdown."""
    lines = ["| span | | became | runs | accuracy | last blessed model's | reason |", "|---|---|---|---|---|---|---|"]
    for span, entry in entries.items():
        figures = re.search(r"accuracy is ([0-9.]+), last_blessed ([0-9.]+)", " ".join(_reasons(entry)))
        ours, theirs = figures.groups() if figures else (_accuracy(entry), "")
        why = next((text for text in _reasons(entry) if text.startswith("fails")), entry.reason)
        why = "" if entry.state == "pushed" else why.replace("|", "/")
        runs = f"{entry.attempt}, {entry.interruptions} killed" if entry.interruptions else str(entry.attempt)
        lines.append(f"| {span} | {_WRONG.get(span, '')} | {entry.state} | {runs} | {ours} | {theirs} | {why} |")
    return "\n".join(lines)


def _reasons(entry: Entry) -> list[str]:
    return list((entry.report.get("verdict") or {}).get("reasons", []))


def _accuracy(entry: Entry) -> str:
    found = re.search(r"accuracy is ([0-9.]+)", " ".join(_reasons(entry)))
    return found[1] if found else ""
