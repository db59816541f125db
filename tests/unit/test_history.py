"""The history of a pipeline: every evaluation with its verdict, what failed before one, and a page that shows them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.report import charts
from components.report.history import render_history
from infra.bench.recorded_run import Replayed
from pipelines.config import PipelineConfig
from pipelines.lineage.attempts import Attempt, attempts_of, history_document
from pipelines.lineage.graph import Graph
from pipelines.metadata import MetadataStore
from pipelines.reports import write_history

from recorded_runs import config_of
from replayed_store import Counter, Store, changed, compiler_of
from report_documents import HOSTILE

_LARGEST_BYTES = 2_000_000
_EARLIER = ("ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform", "QuantizeTrainer")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def _attempts(store: Store, pipeline: str = "devices") -> list[Attempt]:
    return attempts_of(Graph(MetadataStore(str(store.path))), pipeline)


def _refused(node: str, reason: str) -> Any:
    return changed(node, "ModelBlessing", blessed=0, reasons=json.dumps(["holds: a >= 1 (a is 1)", reason]))


def test_history_has_each_evaluation_of_each_target_with_figures_verdict_and_push(store: Store) -> None:
    for name in ("run-1", "run-2"):
        run = store.run(name)
    found = _attempts(store)
    assert [(one.number, one.state) for one in found] == [(1, "blessed")] * 2 + [(2, "blessed")] * 2
    assert {one.target for one in found[:2]} == {one.target for one in found[2:]} == {"cpu", "edge_tpu"}
    (newest,) = [one for one in found if (one.target, one.number) == ("cpu", 2)]
    model = store.artifact(run, compiler_of("cpu"), "Model").custom_properties
    assert newest.size_bytes == model["size_bytes"].int_value > 0
    assert newest.metrics == {"accuracy": {"integer": 0.983003, "float": 0.985836}}
    assert (
        newest.version
        == store.artifact(run, "Pusher-cpu", "PushedModel").custom_properties["pushed_version"].string_value
    )
    assert newest.reasons == ()
    assert newest.clipped_inputs is None


def test_history_has_refused_models_with_the_reasons_that_refuse(store: Store) -> None:
    store.run("run-1", edit=_refused("QuantizedEvaluator-cpu", "accuracy is 0.5, below 0.9"))
    (cpu,) = [one for one in _attempts(store) if one.target == "cpu"]
    assert (cpu.state, cpu.reasons) == ("refused", ("accuracy is 0.5, below 0.9",))


def test_history_has_what_failed_before_an_evaluation_and_what_still_runs(store: Store) -> None:
    run = store.run("run-1")
    for node, state in (("QuantizeTrainer", mlmd.Execution.FAILED), ("Transform", mlmd.Execution.RUNNING)):
        (execution,) = store.client.get_executions_by_id([run.executions[node]])
        execution.last_known_state = state
        store.client.put_executions([execution])
    found = _attempts(store)
    assert {(one.component, one.state, one.number) for one in found if one.number is None} == {
        ("QuantizeTrainer", "failed", None),
        ("Transform", "running", None),
    }
    counts = history_document("devices", found)["counts"]
    assert counts == {"blessed": 2, "refused": 0, "stopped": 0, "failed": 1, "running": 1}


def _stopped_by_drift(store: Store, run: Replayed, examples: mlmd.Artifact, reasons: list[str]) -> None:
    """Lets SpanDrift have measured examples in a run, and DriftGate have stopped it."""
    client = store.client
    contexts = [one for one in client.get_contexts() if one.name in ("devices", run.run_id)]
    made: dict[str, int] = {}
    states = {
        "components.span_drift.SpanDrift": mlmd.Execution.COMPLETE,
        "components.drift_gate.DriftGate": mlmd.Execution.FAILED,
    }
    for name, state in states.items():
        type_id = client.put_execution_type(mlmd.ExecutionType(name=name))
        execution = mlmd.Execution(type_id=type_id, last_known_state=state)
        made[name], _, _ = client.put_execution(execution, [], contexts)
    measurer, gate = made.values()
    anomalies = mlmd.Artifact(type_id=client.put_artifact_type(mlmd.ArtifactType(name="ExampleAnomalies"), True, True))
    anomalies.custom_properties["drift"].double_value = 0.2525
    anomalies.custom_properties["reasons"].string_value = json.dumps(reasons)
    (drift,) = client.put_artifacts([anomalies])
    events = [(mlmd.Event.INPUT, examples.id, measurer, "examples"), (mlmd.Event.OUTPUT, drift, measurer, "drift")]
    for kind, artifact, execution_id, key in (*events, (mlmd.Event.INPUT, drift, gate, "drift")):
        event = mlmd.Event(type=kind, artifact_id=artifact, execution_id=execution_id)
        event.path.steps.add(key=key)
        client.put_events([event])


def test_history_has_a_run_that_drift_stopped_with_its_spans_figure_and_reason(store: Store) -> None:
    run = store.run("run-1", edit=changed("ImportExampleGen", "Examples", spans="[1, 2, 3]"))
    refusal = "fails: drift <= 0.1 (drift is 0.2525, of image)"
    examples = store.artifact(run, "ImportExampleGen", "Examples")
    _stopped_by_drift(store, run, examples, ["holds: drift of label <= 0.1 (drift of label is 0)", refusal])
    *evaluated, stopped = _attempts(store)
    assert {one.run for one in evaluated} == {"run-1"}
    assert (stopped.state, stopped.component, stopped.run) == ("stopped", "DriftGate", "run-1")
    assert (stopped.spans, stopped.drift, stopped.reasons) == ((1, 2, 3), {"drift": 0.2525}, (refusal,))
    page = render_history(history_document("devices", [*evaluated, stopped]))
    assert "DriftGate stopped the run; fails: drift &lt;= 0.1 (drift is 0.2525, of image)" in page
    assert "did not end" not in page
    assert '<span data-source="/attempts/2/spans">1, 2, 3</span>' in page
    for target in ("cpu", "edge_tpu"):
        assert f"<caption>drift for {target}</caption>" in page
    assert page.count('<data value="0.2525" data-source="/attempts/2/drift/drift">0.2525</data>') == 2


def test_history_calls_a_gate_failed_that_did_not_come_to_a_refusal(store: Store) -> None:
    run = store.run("run-1")
    _stopped_by_drift(store, run, store.artifact(run, "ImportExampleGen", "Examples"), [])
    assert [one.state for one in _attempts(store)] == ["blessed", "blessed", "failed"]


def test_history_leaves_out_what_was_skipped_since_it_refused_nothing(store: Store) -> None:
    reason = "skipped: accuracy drop vs last_blessed <= 0 (there is no last blessed model yet)"
    store.run("run-1", edit=changed("QuantizedEvaluator-cpu", "ModelBlessing", reasons=json.dumps([reason])))
    assert [one.reasons for one in _attempts(store)] == [(), ()]


def test_axis_counts_in_whole_numbers_when_there_is_one_evaluation() -> None:
    picture = charts.lines([charts.Line(label="one", values=(0.5,), first=2)], "auc", "evaluation")
    written = re.findall(r"<text[^>]*>([0-9.]+)</text>", picture)
    across = [one for one in written if float(one) > 1]  # those of the other axis are about 0.5
    assert across == ["2"]


def test_history_takes_whatever_figures_of_drift_there_are(store: Store) -> None:
    def edit(node: str, artifact: mlmd.Artifact) -> None:
        if node == "QuantizedEvaluator-cpu" and artifact.type == "ModelEvaluation":
            artifact.custom_properties["clipped_inputs"].double_value = 0.0625
        if node == "ImportExampleGen" and artifact.type == "Examples":
            artifact.custom_properties["drift_linf"].double_value = 0.25

    store.run("run-1", edit=edit)
    found = {one.target: one for one in _attempts(store)}
    assert {target: one.clipped_inputs for target, one in found.items()} == {"cpu": 0.0625, "edge_tpu": None}
    assert [one.drift for one in found.values()] == [{"drift_linf": 0.25}] * 2


def test_history_says_what_came_from_the_cache(store: Store) -> None:
    first = store.run("run-1")
    store.run("run-2", before=first, cached=tuple(first.executions))
    assert [one.cached for one in _attempts(store)] == [False, False, True, True]
    assert len({one.version for one in _attempts(store)}) == 2


def test_history_is_empty_when_there_is_no_such_pipeline(store: Store) -> None:
    store.run("run-1")
    assert _attempts(store, "another") == []


def test_history_needs_two_calls_more_for_each_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    run = store.run("run-0")
    for number in range(2):
        with monkeypatch.context() as patched:
            counter = Counter(patched)
            _attempts(store)
        counts.append(counter.calls)
        for later in range(8 if not number else 0):
            store.run(f"later-{later}", before=run, cached=_EARLIER)
    # ML Metadata's client reads executions by the hundred; nobody but a run's own context says what belongs to it.
    assert counts[0] < 12
    assert counts[1] <= counts[0] + 2 + 8 * 2


def _config(store: Store) -> PipelineConfig:
    return config_of(str(store.path), "devices", store.root)


def test_page_shows_the_numbers_of_its_json_and_no_others(store: Store) -> None:
    run = store.run("run-1")
    store.run("run-2", before=run, edit=_refused("QuantizedEvaluator-cpu", "accuracy is 0.5, below 0.9"))
    written = write_history(_config(store))
    page = Path(written.uri).read_text(encoding="utf-8")
    held = json.loads((store.root / "history.json").read_text())
    numbers = re.findall(r'<data value="([^"]+)" data-source="([^"]+)">', page)
    assert {source for _, source in numbers} > {
        "/counts/refused",
        "/attempts/3/metrics/accuracy/integer",
        "/attempts/0/size_bytes",
    }
    for exact, source in numbers:
        value = held
        for part in source.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
        assert json.loads(exact) == value, source
    assert page.count('<strong class="mark">refused</strong>') == 2  # in the strip and in the table
    assert "accuracy is 0.5, below 0.9" in page


def test_history_is_refused_when_nothing_was_run(store: Store) -> None:
    with pytest.raises(ValueError, match="so that there is no history"):
        write_history(_config(store))
    assert not store.root.exists()


def _attempt(minute: int, **changes: Any) -> Attempt:
    facts: dict[str, Any] = {
        "at": f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00Z",
        "run": f"run-{minute}",
        "state": "refused" if minute % 3 == 0 else "blessed",
        "component": "QuantizedEvaluator",
        "target": "cpu",
        "number": minute,
        "metrics": {name: {"integer": 0.5, "float": 0.75} for name in ("accuracy", "auc", "loss")},
        "size_bytes": 1_000 + minute,
        "clipped_inputs": 0.125,
        "reasons": ("a reason that is as long as reasons are, about so many words as this",),
    }
    return Attempt(**{**facts, **changes})


def test_page_stays_small_and_says_what_it_leaves_out_when_there_were_many_runs() -> None:
    page = render_history(history_document("many", [_attempt(minute) for minute in range(1, 1_001)]))
    assert len(page.encode()) < _LARGEST_BYTES
    assert "The 800 oldest are in history.json alone." in page
    assert '<data value="2000" data-source="/attempts/999/size_bytes">2,000</data>' in page
    assert "/attempts/799/size_bytes" not in page


def test_page_draws_the_largest_figures_of_drift_when_there_are_many() -> None:
    few = {f"drift_{number:02}": number / 100 for number in range(6)}
    many = {f"drift_{number:02}": number / 100 for number in range(40)}
    pages = [render_history(history_document("one", [_attempt(1, drift=drift)])) for drift in (few, many)]
    drawn = [re.findall(r"<caption>(drift_\d+) for cpu</caption>", page) for page in pages]
    assert drawn == [[f"drift_{number:02}" for number in reversed(range(6))], [f"drift_{n}" for n in range(39, 33, -1)]]
    note = "Drawn are the 6 figures of drift that were largest; history.json has all."
    assert [note in page for page in pages] == [False, True]


def test_page_says_what_is_missing_when_nothing_was_evaluated() -> None:
    failed = _attempt(1, state="failed", component="Transform", number=None, metrics={}, size_bytes=None, target="")
    page = render_history(history_document("failing", [failed]))
    for told in ("Transform did not end", "No model was evaluated.", "The size of no model is recorded."):
        assert told in page


def test_page_runs_nothing_when_texts_are_hostile() -> None:
    hostile = _attempt(1, target=HOSTILE, version=HOSTILE, reasons=(HOSTILE,), drift={HOSTILE: 0.5})
    page = render_history(history_document(HOSTILE, [hostile]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
