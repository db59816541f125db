"""All that came of a pipeline in time: each evaluation with its verdict, each run that drift stopped, each failure."""

import collections
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from components.evaluation.input_ranges import CLIPPED_INPUTS
from components.evaluation.verdict import refusing
from components.retraining.spans import spans_of
from pipelines.lineage.find import is_push
from pipelines.lineage.graph import Execution, Graph
from pipelines.lineage.story import FORMAT
from pipelines.lineage.trace import target_of, utc
from pipelines.metadata import Value

_EVALUATOR, _PUSHER, _DRIFT_GATE = "QuantizedEvaluator", "Pusher", "DriftGate"
BLESSED, REFUSED, STOPPED, FAILED, RUNNING = "blessed", "refused", "stopped", "failed", "running"
_DRIFT = "drift"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One evaluation of a model for one target, or a component that stopped the run or did not end.

    Attributes:
      at: When it began, in UTC.
      run: Id of the run.
      state: "blessed" or "refused", by gates and smoke test; "stopped" before training, by DriftGate, which refused the
        examples; "failed" or "running" of a component that did not end.
      component: Class of the component.
      target: The target; "" where there was none yet.
      number: How many evaluations of the target there were so far, from 1; None of what is none.
      cached: Whether it came from the cache.
      spans: Of the examples, the oldest first; () if nobody recorded any.
      metrics: By name, what was measured of the integer and the float model over all examples.
      size_bytes: Of the file that was judged; None if nobody recorded it.
      clipped_inputs: Share of the inputs beyond what the model can represent, 0 to 1; None if nobody recorded it.
      drift: Figures of drift between spans, by name.
      reasons: What refused it, a sentence each.
      overridden: How many gates need not be kept.
      version: The version that was pushed; "" if none was.
    """

    at: str
    run: str
    state: str
    component: str
    target: str
    number: int | None = None
    cached: bool = False
    spans: tuple[int, ...] = ()
    metrics: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    size_bytes: int | None = None
    clipped_inputs: float | None = None
    drift: dict[str, float] = dataclasses.field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    overridden: int = 0
    version: str = ""


def attempts_of(graph: Graph, pipeline: str) -> list[Attempt]:
    """Returns what came of a pipeline, the oldest first, in a few calls, and two for each run."""
    executions = graph.of_pipeline(pipeline)
    ended = [one for one in executions if one.succeeded]
    evaluators = [one.id for one in ended if one.component == _EVALUATOR]
    pushers = [one.id for one in ended if one.component == _PUSHER]
    stopped = [one.id for one in executions if one.component == _DRIFT_GATE and not one.succeeded]
    graph.edges_of_executions([*evaluators, *pushers, *stopped])
    measured_by = graph.makers([drift for one in stopped for drift in graph.inputs(one).get(_DRIFT, ())])
    graph.edges_of_executions(list(measured_by.values()))
    graph.runs([*evaluators, *(one.id for one in executions if not one.succeeded)])
    versions = {
        blessing: str(graph.artifacts[pushed].properties.get("pushed_version", ""))
        for pusher in pushers
        for blessing in graph.inputs(pusher).get("model_blessing", ())
        for pushed in graph.outputs(pusher).get("pushed_model", ())
        if is_push(graph.artifacts[pushed])
    }
    numbers: collections.Counter[str] = collections.Counter()
    found = []
    for one in executions:
        if not one.succeeded:
            found.append(_unended(graph, one))
        elif one.component == _EVALUATOR:
            attempt = _evaluated(graph, one, versions)
            numbers[attempt.target] += 1
            found.append(dataclasses.replace(attempt, number=numbers[attempt.target]))
    return found


def history_document(pipeline: str, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Returns what a page on a pipeline's history is made of: "format", "pipeline", "counts" by state, "attempts"."""
    states = collections.Counter(one.state for one in attempts)
    return {
        "format": FORMAT,
        "pipeline": pipeline,
        "counts": {state: states[state] for state in (BLESSED, REFUSED, STOPPED, FAILED, RUNNING)},
        "attempts": [
            {**dataclasses.asdict(one), "reasons": list(one.reasons), "spans": list(one.spans)} for one in attempts
        ],
    }


def _unended(graph: Graph, execution: Execution) -> Attempt:
    """One that failed or goes on; of DriftGate, which stops a run where examples have drifted, with why."""
    facts = execution.properties
    taken = graph.inputs(execution.id).get(_DRIFT, []) if execution.component == _DRIFT_GATE else []
    drift = [graph.artifacts[one].properties for one in taken]
    reasons = tuple(text for of in drift for text in refusing(json.loads(str(of.get("reasons", "")) or "[]")))
    ended = STOPPED if reasons else FAILED
    examples = [one for maker in graph.makers(taken).values() for one in graph.inputs(maker).get("examples", ())]
    return Attempt(
        at=utc(execution.started_s),
        run=graph.runs([execution.id])[execution.id][1],
        state=RUNNING if execution.running else ended,
        component=execution.component,
        target=str(facts.get("target", "") or facts.get("profile", "")),
        spans=next((spans_of(graph.artifacts[one].properties) for one in examples), ()),
        drift=_drift(drift),
        reasons=reasons,
    )


def _evaluated(graph: Graph, execution: Execution, versions: dict[int, str]) -> Attempt:
    taken, given = graph.inputs(execution.id), graph.outputs(execution.id)

    def facts(of: dict[str, list[int]], key: str) -> dict[str, Value]:
        return graph.artifacts[of[key][0]].properties if of.get(key) else {}

    evaluation, blessing, smoke = facts(given, "evaluation"), facts(given, "blessing"), facts(taken, "infra_blessing")
    key = "compiled_model" if taken.get("compiled_model") else "model"
    judged = graph.artifacts[taken[key][0]]
    size = judged.properties.get("size_bytes")
    is_blessed = blessing.get("blessed") == 1 and smoke.get("blessed", 1) == 1
    clipped = evaluation.get(CLIPPED_INPUTS)
    return Attempt(
        at=utc(execution.started_s),
        run=graph.runs([execution.id])[execution.id][1],
        state=BLESSED if is_blessed else REFUSED,
        component=execution.component,
        target=target_of(judged),
        cached=execution.cached,
        spans=spans_of(judged.properties, "examples_"),
        metrics=measured(evaluation),
        size_bytes=size if isinstance(size, int) else None,
        clipped_inputs=clipped if isinstance(clipped, float) else None,
        drift=_drift([graph.artifacts[one].properties for of in (taken, given) for ids in of.values() for one in ids]),
        reasons=tuple(
            text
            for facts_of in (blessing, smoke)
            for text in refusing(json.loads(str(facts_of.get("reasons", "")) or "[]"))
        ),
        overridden=len(json.loads(str(blessing.get("overrides", "")) or "[]")),
        version=next((versions[one] for one in given.get("blessing", ()) if one in versions), ""),
    )


def measured(facts: dict[str, Value]) -> dict[str, dict[str, float]]:
    """Returns the metrics that an evaluation has of the integer model and its float parent: what the user asked for."""
    found = {}
    for name, value in sorted(facts.items()):
        metric = name.removeprefix("integer_")
        other = facts.get(f"float_{metric}")
        if name != metric and metric != "example_count" and isinstance(value, float) and isinstance(other, float):
            found[metric] = {"integer": value, "float": other}
    return found


def _drift(artifacts: Sequence[dict[str, Value]]) -> dict[str, float]:
    """Whatever figure of drift an evaluation's inputs or outputs carry."""
    return {
        name: float(value)
        for facts in artifacts
        for name, value in sorted(facts.items())
        if _DRIFT in name and isinstance(value, int | float)
    }
