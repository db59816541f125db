"""Decisions of the scheduler as ML Metadata has them, in a real store."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.retraining.decisions import Outcome
from components.retraining.ledger import Entry
from components.retraining.policy import RetrainingPolicy
from pipelines import decision_record
from pipelines.__main__ import _config_of_run
from pipelines.decision_record import DECISION_TYPE, record
from pipelines.local_schedule import scheduler_of
from pipelines.metadata import properties_of
from pipelines.metadata_opening import open_store

from scheduler_process import write_span


def _with_run(path: str, name: str) -> Any:
    store = open_store(path, create=True)
    run_type = store.put_context_type(mlmd.ContextType(name="pipeline_run"))
    store.put_contexts([mlmd.Context(type_id=run_type, name=name)])
    return store


def test_record_keeps_a_decision_without_a_run_when_the_store_is_not_there_yet(tmp_path: Path) -> None:
    path = str(tmp_path / "root" / "metadata.sqlite")
    record(path, "digits/7/1", "", {"span": 7, "decision": "quarantined", "decision_reason": "it is empty"})
    (decision,) = open_store(path).get_contexts_by_type(DECISION_TYPE)
    assert decision.name == "digits/7/1"
    assert properties_of(decision) == {
        "span": 7,
        "decision": "quarantined",
        "decision_reason": "it is empty",
        "run": "",
    }
    assert decision_record.run_since(path, "digits", 0.0) == ""  # a store without a pipeline in it


def test_record_keeps_each_decision_once_and_with_its_run(tmp_path: Path) -> None:
    path = str(tmp_path / "metadata.sqlite")
    store = _with_run(path, "monday")
    for reason in ("first", "second"):  # told twice
        record(path, "digits/7/3", "monday", {"span": 7, "decision": "refused", "decision_reason": reason})
    record(path, "digits/7/4", "", {"span": 7, "decision": "quarantined", "decision_reason": "killed"})
    decisions = {one.name: properties_of(one) for one in store.get_contexts_by_type(DECISION_TYPE)}
    assert {name: (one["decision"], one["decision_reason"], one["run"]) for name, one in decisions.items()} == {
        "digits/7/3": ("refused", "second", "monday"),
        "digits/7/4": ("quarantined", "killed", ""),
    }
    (run,) = store.get_contexts_by_type("pipeline_run")
    assert properties_of(run) == {"span": 7, "decision": "refused", "decision_reason": "second"}


def test_program_says_which_decisions_it_recorded_before_one_that_it_could_not(tmp_path: Path) -> None:
    path = str(tmp_path / "metadata.sqlite")
    store = _with_run(path, "monday")
    asked = [["digits/7/3", "monday", {"span": 7}], ["digits/8/4", "tuesday", {}], ["digits/9/5", "", {"span": 9}]]
    command = [sys.executable, "-m", "pipelines.decision_record", path]
    done = subprocess.run(
        command, input=json.dumps(asked), check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["digits/7/3"]
    assert "no pipeline_run 'tuesday'" in done.stderr.splitlines()[-1]
    assert {one.name for one in store.get_contexts_by_type(DECISION_TYPE)} == {"digits/7/3", "digits/8/4"}


def test_scheduler_logs_why_a_decision_could_not_be_recorded_and_records_it_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["stream", "--root", str(tmp_path / "root"), "--spans", f"{tmp_path}/data/span-{{SPAN}}/*.tfrecord"]
    config = _config_of_run(arguments)
    entry = Entry(span=7, state="skipped", reason="too old", decision=1, untold=("the record in ML Metadata",))
    in_the_way = Path(config.metadata_url)
    in_the_way.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    ledger = scheduler_of(config, arguments, "").ledger
    with ledger.lock():
        ledger.write(entry)
        assert not scheduler_of(config, arguments, "").step()
        assert ledger.entries()[7].untold == entry.untold
        assert f"{in_the_way}" in caplog.text
        assert "non-zero exit status" not in caplog.text
        in_the_way.rmdir()
        assert scheduler_of(config, arguments, "").step()
    assert ledger.entries()[7].untold == ()
    (decision,) = open_store(config.metadata_url).get_contexts_by_type(DECISION_TYPE)
    assert decision.name == "stream/7/1"


def test_record_keeps_the_decision_and_raises_when_its_run_is_unknown(tmp_path: Path) -> None:
    path = str(tmp_path / "metadata.sqlite")
    store = _with_run(path, "monday")
    with pytest.raises(ValueError, match="no pipeline_run 'tuesday'; was the store replaced"):
        record(path, "digits/7/3", "tuesday", {"span": 7})
    assert [one.name for one in store.get_contexts_by_type(DECISION_TYPE)] == ["digits/7/3"]


@pytest.mark.slow
def test_scheduler_records_every_decision_also_of_spans_that_no_run_in_ml_metadata_is_about(tmp_path: Path) -> None:
    arguments = ["stream", "--root", str(tmp_path / "root"), "--spans", f"{tmp_path}/data/span-{{SPAN}}/*.tfrecord"]
    config = dataclasses.replace(_config_of_run(arguments), retraining=RetrainingPolicy(max_failures=1))
    verdict = {"blessed": False, "pushed_to": "", "reasons": ["fails: a gate"]}
    empty = {"state": "FAILED", "error": "span 2: empty", "fault": "examples", "broken_span": 2, "run": ""}
    outcomes = {
        2: Outcome(report=empty),
        3: Outcome(report={}, error="killed after 1 s"),
        4: Outcome(report={"state": "SUCCEEDED", "run": "monday", "error": "", "fault": "", "verdict": verdict}),
    }

    def run(entry: Entry) -> Outcome:
        if entry.span == 4:
            _with_run(config.metadata_url, "monday")
        return outcomes[entry.span]

    one = dataclasses.replace(scheduler_of(config, arguments, ""), run=run)
    with one.ledger.lock():
        for arriving in ((2, 3, 4), (1,)):
            for span in arriving:
                write_span(tmp_path, span, "")
            while one.step():
                pass
    contexts = open_store(config.metadata_url).get_contexts_by_type(DECISION_TYPE)
    decisions = {context.name: properties_of(context) for context in contexts}
    assert {name: (one["span"], one["decision"], one["run"]) for name, one in decisions.items()} == {
        "stream/2/1": (2, "quarantined", ""),
        "stream/3/2": (3, "quarantined", ""),
        "stream/4/3": (4, "refused", "monday"),
        "stream/1/4": (1, "skipped", ""),
    }
    assert decisions["stream/2/1"]["decision_reason"] == "span 2: empty"
    assert decisions["stream/3/2"]["decision_reason"] == "1 runs failed, the last one so: killed after 1 s"
    assert str(decisions["stream/4/3"]["decision_reason"]).endswith("fails: a gate")
    assert decisions["stream/1/4"]["decision_reason"] == "it was complete only after span 4 was begun"
    assert {str(one["pipeline"]) for one in decisions.values()} == {"stream"}
