"""Accuracy of all models on the way, with intervals, and the other metrics."""

from collections.abc import Iterator

from components.evaluation.measurements import FAKE_QUANT, FLOAT, INTEGER, LAST_BLESSED
from components.report import charts
from components.report.facts import Cell, Node
from components.report.layout import Figure, Row, Section, Table, row, table
from components.report.sections import pairs

_NAMES = {FLOAT: "float", FAKE_QUANT: "fake quantization", INTEGER: "integer", LAST_BLESSED: "last blessed"}
_BY_TRAINER = "fake quantization (trainer)"
_ABSENT = "not evaluated"


def section(root: Node) -> Section:
    """Returns accuracies, differences and metrics over all examples."""
    found = list(pairs.overall(root))
    missing = [] if found else ["The models were not run on the same examples, so that there are no accuracies."]
    figures = [figure for output in _outputs(found) if (figure := _accuracies(root, found, output)) is not None]
    if found and not figures:
        missing.append("There is no accuracy: labels are values, not classes.")
    tables = [one for one in (_differences(found), _metrics(root["measurements"]["metrics"])) if one.rows]
    confidence = next((pair["confidence"].cell(".0%").text for pair in found), "")
    notes = (
        (f"Accuracy is the share of examples with the right class, with Wilson's interval of {confidence} confidence.",)
        if figures
        else ()
    )
    return Section(
        id="accuracy",
        title="Accuracy",
        notes=notes,
        missing=tuple(missing),
        figures=tuple(figures),
        tables=tuple(tables),
    )


def headline(root: Node) -> list[tuple[str, Cell]]:
    """Returns the figures that stand on top of the page: of the first output."""
    first = next(pairs.overall(root, FLOAT), Node(None))
    return [
        ("integer accuracy", first["accuracy"]["value"].cell(".4f")),
        ("float accuracy", first["other_accuracy"]["value"].cell(".4f")),
        ("agreement of integer with float", first["agreement"].cell(".4f")),
    ]


def _outputs(found: list[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pair["output"].text for pair in found))


def _accuracies(root: Node, compared: list[Node], output: str) -> Figure | None:
    """The accuracies of one output; None if its labels are values."""
    of = {pair["model"].text: pair for pair in compared if pair["output"].text == output}
    found = {name: pair["other_accuracy"] for name, pair in of.items()}
    if FLOAT in of:
        found[INTEGER] = of[FLOAT]["accuracy"]
    measured = [(_NAMES[name], found[name]) for name in _NAMES if name in found and found[name]["value"]]
    if not measured:
        return None
    drawn = [_bar(name, one["value"], one["low"].number, one["high"].number) for name, one in measured]
    trained = root["integer_model"]["parent_eval_accuracy"]
    if FAKE_QUANT not in found and not output and trained.number is not None:
        drawn.insert(1, _bar(_BY_TRAINER, trained))
    where = f" of output {output}" if output else ""
    examples = next(iter(of.values()))["examples"]
    rows = [
        row(name, one["value"].cell(".4f"), one["low"].cell(".4f"), one["high"].cell(".4f"), examples.cell(",d"))
        for name, one in measured
    ]
    head = ("model", "accuracy", "low", "high", "examples")
    return Figure(
        svg=charts.bars(drawn, f"accuracy{where}, with interval", points=True),
        alt=f"Accuracy{where}: " + ", ".join(f"{one.label} {one.text}" for one in drawn) + ".",
        table=table(f"Accuracy{where}, 0 to 1", head, [*rows, *_others(root, found, output)]),
        open=True,
    )


def _bar(name: str, value: Node, low: float | None = None, high: float | None = None) -> charts.Bar:
    return charts.Bar(
        label=name,
        value=value.number or 0.0,
        text=value.cell(".4f").text,
        low=low,
        high=high,
        marked=name == _NAMES[INTEGER],
    )


def _others(root: Node, found: dict[str, Node], output: str) -> Iterator[Row]:
    """Rows of the models that were not run beside the others."""
    if FAKE_QUANT not in found and not output:
        trained = root["integer_model"]["parent_eval_accuracy"]
        yield row(_BY_TRAINER, trained.cell(".4f", missing=_ABSENT), _ABSENT, _ABSENT, "the trainer's eval split")
    if root["compiled_model"]["sha256"].text and _is_same_file(root):
        yield row("compiled", "the integer file itself, byte by byte", *["as integer"] * 3)
    else:
        yield row("compiled", "not measured: it runs on its target alone", *[_ABSENT] * 3)


def _is_same_file(root: Node) -> bool:
    return bool(root["compiled_model"]["sha256"].value == root["integer_model"]["sha256"].value)


def _differences(found: list[Node]) -> Table:
    rows = [
        row(
            " ".join(filter(None, (_NAMES.get(pair["model"].text, pair["model"].text), pair["output"].text))),
            *pairs.cells(pair),
        )
        for pair in found
    ]
    return table("integer against other models on the same examples", ("integer against", *pairs.HEAD), rows)


def _metrics(measured: Node) -> Table:
    cells = [cell for cell in measured if cell["slice"].value == []]
    rows = [
        row(
            name,
            _NAMES.get(cell["model"].text, cell["model"].text),
            cell["output"].text or "the only one",
            cell["metrics"][name].cell(".6g"),
        )
        for cell in cells
        for name in cell["metrics"].names
    ]
    rows.sort(key=lambda one: [cell.text for cell in one.cells[:3]])
    return table("Metrics over all examples", ("metric", "model", "output", "value"), rows)
