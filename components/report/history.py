"""The page on all runs of a pipeline in time: verdicts, accuracy, size and drift.

It is made of one document, as `pipelines/lineage/attempts.py` makes it, and like the page on a run it computes nothing.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.report import charts
from components.report.facts import Cell, Node
from components.report.layout import Figure, Row, Section, Strip, Table, row, table
from components.report.page import Heading, page

_LISTED = 200
_MOST_DRIFT = 6  # figures for each target
_STATES = ("blessed", "refused", "stopped", "failed", "running")
_OFF = {"refused": "refused", "stopped": "stopped", "failed": "failed", "running": "not ended"}
_CROSSED = ("refused", "stopped")


def render_history(document: Mapping[str, Any]) -> str:
    """Returns the page; of the same document always the same."""
    root = Node(document)
    name = root["pipeline"].text
    counts = root["counts"]
    heading = Heading(
        title=f"History of {name}",
        headline=tuple((state, counts[state].cell(",d")) for state in _STATES),
        made_of="history.json",
    )
    return page(heading, sections(root))


def sections(root: Node) -> tuple[Section, ...]:
    """Returns the sections: what came of all, then accuracy, size and drift for each target."""
    attempts = list(root["attempts"])[-_LISTED:]
    left_out = len(list(root["attempts"])) - len(attempts)
    evaluated = [one for one in attempts if one["number"]]
    by_target = {name: [one for one in evaluated if _is_of(one, name)] for name in _targets(evaluated)}
    # A run that was stopped concerns all targets, and came to a model for none.
    with_stopped = {
        name: [one for one in attempts if one["state"].text == "stopped" or _is_of(one, name)]
        for name in by_target or [""]
    }
    most = max((len(_drift_names(of)) for of in with_stopped.values()), default=0)
    drift = _section("drift", "Drift", with_stopped, _drift, "Nothing is recorded of drift.")
    if most > _MOST_DRIFT:
        note = f"Drawn are the {_MOST_DRIFT} figures of drift that were largest; history.json has all."
        drift = dataclasses.replace(drift, notes=(*drift.notes, note))
    older = (f"The {left_out} oldest are in history.json alone.",) if left_out else ()
    return (
        Section(
            id="verdicts",
            title="Verdicts",
            notes=older,
            missing=() if attempts else ("Nothing was run.",),
            strip=_strip(attempts) if attempts else None,
            tables=(_table(attempts),) if attempts else (),
        ),
        _section("accuracy", "Metrics", by_target, _metrics, "No model was evaluated."),
        _section("size", "Size", by_target, _sizes, "The size of no model is recorded."),
        drift,
    )


def _section(
    anchor: str,
    title: str,
    by_target: Mapping[str, list[Node]],
    figures_of: Callable[[list[Node]], list[Figure]],
    missing: str,
) -> Section:
    figures = tuple(figure for of in by_target.values() for figure in figures_of(of))
    states = {one["state"].text for of in by_target.values() for one in of}
    told = {"refused": "A cross marks a model that was refused.", "stopped": "A cross marks a run that was stopped."}
    notes = tuple(text for state, text in told.items() if figures and state in states)
    return Section(id=anchor, title=title, notes=notes, missing=() if figures else (missing,), figures=figures)


def _targets(evaluated: Sequence[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one["target"].text for one in evaluated))


def _is_of(one: Node, target: str) -> bool:
    """Whether it is an evaluation for a target."""
    return bool(one["number"]) and one["target"].text == target


def _strip(attempts: Sequence[Node]) -> Strip:
    cells = []
    for one in attempts:
        mark = _OFF.get(one["state"].text, "")
        said = one["version"].text or one["component"].text
        about = f"{one['at'].text}, {one['target'].text or 'no target yet'}: {mark or 'blessed'}, {said}"
        cells.append((one["at"].cell(), mark, about))
    return Strip(caption="All evaluations, and what stopped or failed before one, in order", ops=tuple(cells))


def _table(attempts: Sequence[Node]) -> Table:
    metrics = list(dict.fromkeys(name for one in attempts for name in one["metrics"].names))
    head = (
        "began at",
        "run",
        "why",
        "target",
        "number",
        "spans",
        *(f"{name}, {model}" for name in metrics for model in ("integer", "float")),
        "bytes",
        "clipped inputs",
        "pushed version",
    )
    return table("What came of each, the newest first", head, [_row(one, metrics) for one in reversed(attempts)])


def _row(one: Node, metrics: Sequence[str]) -> Row:
    none = "none"
    ended = "stopped the run" if one["state"].text == "stopped" else "did not end"
    failed = f"{one['component'].text} {ended}" if not one["number"] else ""
    reasons = "; ".join(reason.text for reason in one["reasons"])
    said = "" if one["cached"].value is not True else "from the cache"
    return row(
        one["at"].cell(),
        one["run"].cell(),
        Cell(
            text="; ".join(filter(None, (failed, reasons, said))) or none, path=one["reasons"].path if reasons else ""
        ),
        one["target"].cell(missing=none),
        one["number"].cell(",d", missing=none),
        Cell(text=", ".join(span.cell("d").text for span in one["spans"]) or none, path=one["spans"].path),
        *(one["metrics"][name][model].cell(".4f", missing=none) for name in metrics for model in ("integer", "float")),
        one["size_bytes"].cell(",d", missing=none),
        one["clipped_inputs"].cell(".3%", missing=none),
        one["version"].cell() if one["version"].text else none,
        mark=_OFF.get(one["state"].text, ""),
    )


def _metrics(evaluated: list[Node]) -> list[Figure]:
    names = dict.fromkeys(name for one in evaluated for name in one["metrics"].names)
    return [
        _figure(
            name,
            evaluated,
            {model: [one["metrics"][name][model] for one in evaluated] for model in ("integer", "float")},
            ".4f",
        )
        for name in names
    ]


def _sizes(evaluated: list[Node]) -> list[Figure]:
    sizes = [one["size_bytes"] for one in evaluated]
    return (
        [_figure("bytes of the file", evaluated, {"bytes": sizes}, ",d", "kB (1,000 bytes)", 1_000.0)]
        if any(sizes)
        else []
    )


def _drift(evaluated: list[Node]) -> list[Figure]:
    found = {"clipped inputs": [one["clipped_inputs"] for one in evaluated]}
    found |= {name: [one["drift"][name] for one in evaluated] for name in _drift_names(evaluated)[:_MOST_DRIFT]}
    # Each on an axis of its own: figures of drift have no unit in common.
    return [_figure(name, evaluated, {name: values}, ".4g") for name, values in found.items() if any(values)]


def _drift_names(evaluated: Sequence[Node]) -> list[str]:
    """Names of the figures of drift, those first that were largest."""
    largest: dict[str, float] = {}
    for one in evaluated:
        for name in one["drift"].names:
            largest[name] = max(largest.get(name, 0.0), one["drift"][name].number or 0.0)
    return sorted(largest, key=lambda name: (-largest[name], name))


def _figure(
    what: str, evaluated: list[Node], values: Mapping[str, list[Node]], form: str, axis: str = "", unit: float = 1.0
) -> Figure:
    """A line for each row of values, on an axis in some unit of theirs.

    They are over the numbers of the evaluations; where runs that were stopped are among them, over their own order.
    """
    of_runs = not all(one["number"] for one in evaluated)
    numbers = [at if of_runs else int(one["number"].number or 0) for at, one in enumerate(evaluated, 1)]
    refused = frozenset(at for at, one in zip(numbers, evaluated, strict=True) if one["state"].text in _CROSSED)
    drawn = [
        charts.Line(label=name, values=tuple(_in(one, unit) for one in row), first=numbers[0], marked=refused)
        for name, row in values.items()
    ]
    over = "evaluation, or run that was stopped, in order" if of_runs else "evaluation"
    newest = ", ".join(f"{name} {row[-1].cell(form).text}" for name, row in values.items())
    where = f"{what} for {next(iter(_targets([one for one in evaluated if one['number']])), 'no target yet')}"
    figures = [[of.cell(form) for of in each] for each in zip(*values.values(), strict=True)]
    rows = [
        row(one["number"].cell(",d", missing="stopped"), one["at"].cell(), *cells)
        for one, cells in zip(evaluated, figures, strict=True)
    ]
    return Figure(
        svg=charts.lines(drawn, axis or what, over, from_zero=len(values) == 1),
        alt=f"{where} over {len(evaluated)} {'runs' if of_runs else 'evaluations'}; the newest: {newest}.",
        table=table(where, ("evaluation", "began at", *values), rows),
    )


def _in(value: Node, unit: float) -> float | None:
    return None if value.number is None else value.number / unit
