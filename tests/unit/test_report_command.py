"""The command `report`: which run the pages are on, and where ML Metadata is."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.report.facts import FACTS_FILE, Facts
from infra.bench.recorded_run import Replayed
from pipelines.__main__ import main

from replayed_store import Store
from report_documents import documents

_TARGETS = ("cpu", "edge-tpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def _evaluated(store: Store, name: str) -> Replayed:
    """A run with the documents of its evaluations, which say its name."""
    run = store.run(name)
    for target in _TARGETS:
        blessing = Path(store.artifact(run, f"QuantizedEvaluator-{target}", "ModelBlessing").uri)
        blessing.mkdir(parents=True)
        found = documents()
        found["compiled_model"]["pipeline"] = f"made by {name}"
        (blessing / FACTS_FILE).write_text(Facts(documents=found).to_json())
    return run


def _stopped(store: Store, name: str) -> Replayed:
    run = store.run(name)
    ids = [run.executions[f"QuantizedEvaluator-{target}"] for target in _TARGETS]
    executions = store.client.get_executions_by_id(ids)
    for one in executions:
        one.last_known_state = mlmd.Execution.FAILED
    store.client.put_executions(executions)
    return run


def _report(store: Store, *arguments: str) -> Result:
    told = ["report", "devices", "--no-open", "--root", str(store.root), "--metadata", str(store.path), *arguments]
    return CliRunner().invoke(main, told)


def _pages(store: Store) -> list[str]:
    return [path.read_text() for path in sorted(store.root.glob("report.*.html"))]


def test_report_is_on_the_last_run_in_the_ml_metadata_that_was_given(store: Store) -> None:
    for name in ("run-1", "run-2"):
        _evaluated(store, name)
    result = _report(store)
    assert (result.exit_code, len(result.output.splitlines())) == (0, 2)
    assert ["made by run-2" in page for page in _pages(store)] == [True, True]


def test_report_has_one_table_of_all_targets_on_each_page(store: Store) -> None:
    run = store.run("run-1")
    for target, blessed in zip(_TARGETS, (True, False), strict=True):
        blessing = Path(store.artifact(run, f"QuantizedEvaluator-{target}", "ModelBlessing").uri)
        blessing.mkdir(parents=True)
        found = documents()
        found["verdict"] = {**found["verdict"], "blessed": blessed}
        found["compile_report"] = {**found["compile_report"], "tool": f"tool of {target}", "compiled": blessed}
        (blessing / FACTS_FILE).write_text(Facts(documents=found).to_json())
    assert _report(store).exit_code == 0
    for page in _pages(store):
        (table,) = re.findall(r"<table[^>]*>(?:(?!</table>).)*same trained model.*?</table>", page, re.DOTALL)
        text = " ".join(re.sub(r"<[^>]*>", " ", table).split())
        assert "cpu blessed" in text
        assert "edge_tpu not blessed" in text
        assert "tool of cpu" in text
        assert "not compiled; tool of edge-tpu" in text


def test_report_is_on_the_last_evaluated_run_and_says_so_when_a_later_one_was_stopped(store: Store) -> None:
    _evaluated(store, "run-1")
    _stopped(store, "run-2")
    result = _report(store)
    assert result.exit_code == 0
    assert "the last run, run-2, came to no evaluation; this is run run-1\n" in result.output
    assert ["made by run-1" in page for page in _pages(store)] == [True, True]


def test_report_is_on_the_run_that_was_asked_for(store: Store) -> None:
    for name in ("run-1", "run-2"):
        _evaluated(store, name)
    result = _report(store, "--run", "run-1")
    assert (result.exit_code, "came to no evaluation" in result.output) == (0, False)
    assert ["made by run-1" in page for page in _pages(store)] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "run-7"], "devices has no run run-7; its newest are run-2, run-1"),
        (["--run", "run-2"], "run run-2 of devices did not come to an evaluation for edge_tpu, cpu"),
        ([], "no run of devices came to an evaluation for each target"),
        (["--run", "run-1", "--history"], "--history is on all runs; leave --run out"),
    ],
)
def test_report_is_refused_with_one_sentence_when_there_is_no_such_run(
    store: Store, arguments: list[str], message: str
) -> None:
    for name in ("run-1", "run-2"):
        _stopped(store, name)
    result = _report(store, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert _pages(store) == []
