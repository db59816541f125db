"""Which models were pushed, over time."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence

from components.retraining.spans import spans_of
from pipelines.lineage.attempts import measured
from pipelines.lineage.find import PUSHED, SHORT, is_push
from pipelines.lineage.graph import Graph
from pipelines.lineage.story import FORMAT
from pipelines.lineage.trace import target_of, utc
from pipelines.lineage.tree import spans_text
from pipelines.metadata import ArtifactRecord


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """One push.

    Attributes:
      id: Of the PushedModel.
      store: The ML Metadata that the id is of.
      at: When, in UTC.
      version: Name of the version.
      sha256: Of the pushed file.
      size_bytes: Of it; 0 if nobody recorded it.
      target: Its target; "" for none.
      pipeline: Name of the pipeline, as the converter recorded it; "" for none.
      span: Of the examples, of a window the newest; None if nobody recorded it.
      spans: All spans of the examples, the oldest first; () if nobody recorded any.
      overrides: How many gates were overridden for it.
      metrics: What the evaluation said of the integer model, by the metric's name.
      replaced_version: What was latest before; "" for none, as of the first; None if nobody recorded it.
      destination: Directory of the version.
    """

    id: int
    store: str
    at: str
    version: str
    sha256: str
    size_bytes: int
    target: str
    pipeline: str
    span: int | None
    spans: tuple[int, ...]
    overrides: int
    metrics: dict[str, float]
    replaced_version: str | None
    destination: str


def pushes_of(graph: Graph) -> list[Pushed]:
    """Returns all pushes of a store, the oldest first, in as many calls as for one."""
    pushed = [one for one in graph.of_type(PUSHED) if is_push(one)]
    makers = graph.makers([one.id for one in pushed])
    graph.edges_of_executions(list(makers.values()))
    taken = {maker: graph.inputs(maker) for maker in makers.values()}
    blessings = [one for inputs in taken.values() for one in inputs.get("model_blessing", ())]
    judges = graph.makers(blessings)
    graph.edges_of_executions(list(judges.values()))
    return in_time(_pushed(graph, one, makers[one.id], judges) for one in pushed)


def in_time(pushes: Iterable[Pushed]) -> list[Pushed]:
    """Returns pushes, of one store or several, the oldest first."""
    return sorted(pushes, key=lambda one: (one.at, one.store, one.id))


def pushes_json(pushes: Sequence[Pushed]) -> str:
    """Returns pushes as indented JSON: "format" and "pushes"."""
    return json.dumps({"format": FORMAT, "pushes": [dataclasses.asdict(one) for one in pushes]}, indent=2)


def pushes_lines(pushes: Sequence[Pushed]) -> list[str]:
    """Returns a table of pushes for people; [] of none."""
    if not pushes:
        return []
    head = ("pushed at", "version", "sha256", "target", "spans", "bytes", "of the integer model", "overridden")
    several = len({one.store for one in pushes}) > 1
    rows = [(*head, "replaced", *(["in ML Metadata at"] if several else []))]
    for one in pushes:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in one.metrics.items())
        overridden = f"{one.overrides} gates" if one.overrides else ""
        rows.append(
            (
                one.at,
                one.version,
                one.sha256[:SHORT],
                one.target,
                spans_text(one.spans),
                f"{one.size_bytes:,}",
                metrics,
                overridden,
                "not recorded" if one.replaced_version is None else one.replaced_version,
                *([one.store] if several else []),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _pushed(graph: Graph, pushed: ArtifactRecord, maker: int, judges: dict[int, int]) -> Pushed:
    inputs = graph.inputs(maker)
    model = graph.artifacts[inputs["model"][0]].properties
    facts = pushed.properties
    blessings = inputs.get("model_blessing", [])
    overrides = [str(graph.artifacts[one].properties.get("overrides", "")) for one in blessings]
    size, span, replaced = model.get("size_bytes", 0), model.get("examples_span"), facts.get("replaced_version")
    return Pushed(
        id=pushed.id,
        store=graph.url,
        at=str(facts.get("pushed_at", "")) or utc(graph.executions[maker].started_s),
        version=str(facts.get("pushed_version", "")),
        sha256=str(facts.get("sha256", "") or model.get("sha256", "")),
        size_bytes=size if isinstance(size, int) else 0,
        target=target_of(graph.artifacts[inputs["model"][0]]),
        pipeline=str(model.get("pipeline", "")),
        span=span if isinstance(span, int) else None,
        spans=spans_of(model, "examples_"),
        overrides=sum(len(json.loads(one)) for one in overrides if one),
        metrics=_metrics(graph, [judges[one] for one in blessings]),
        replaced_version=None if replaced is None else str(replaced),
        destination=str(facts.get("pushed_destination", "")),
    )


def _metrics(graph: Graph, judges: Sequence[int]) -> dict[str, float]:
    """The metrics that the integer model and its float parent both have: what the user asked for."""
    given = itertools.chain(*(ids for judge in judges for ids in graph.outputs(judge).values()))
    return {
        name: values["integer"] for one in given for name, values in measured(graph.artifacts[one].properties).items()
    }
