"""How the models were trained: the curves of each loop, and the rungs that were climbed."""

import itertools

from components.report import charts
from components.report.facts import Node
from components.report.layout import Figure, Row, Section, row, table

_MOST_LINES = len(charts.SERIES)


def curves(root: Node) -> Section:
    """Returns the curves of each metric, float and QAT together, on both splits."""
    histories = root["histories"]
    metrics = dict.fromkeys(name.removeprefix("val_") for loop in histories.names for name in histories[loop].names)
    figures = [figure for metric in metrics if (figure := _curve(histories, metric)) is not None]
    missing = () if figures else ("The metrics of the epochs of training are not recorded.",)
    return Section(id="training", title="Training curves", missing=missing, figures=tuple(figures))


def ladder(root: Node) -> Section:
    """Returns the rungs of strategy "auto" with what each cost and brought."""
    receipts = list(root["receipts"])
    if not receipts:
        missing = ("No ladder was climbed: the strategy was fixed.",)
        return Section(id="ladder", title="Escalation ladder", missing=missing)
    metrics = list(dict.fromkeys(name for receipt in receipts for name in receipt["metrics"].names))
    rows = [_rung(receipt, metrics) for receipt in receipts]
    head = ("rung", "scheme", *metrics, "bytes", "seconds", "ms", "accepted", "reasons")
    return Section(
        id="ladder",
        title="Escalation ladder",
        notes=(
            "Bytes are those of the float weights alone, four for each, and of a rung's file as it was measured:"
            " converted from the model in memory, without metadata. The sizes further above are of what is on disk.",
        ),
        tables=(table("Rungs, from the cheapest; a rung's model is measured as integers", head, rows),),
    )


def _rung(receipt: Node, metrics: list[str]) -> Row:
    reasons = "; ".join(reason.text for reason in receipt["reasons"])
    skipped = not receipt["metrics"].names
    absent = "not made"
    return row(
        receipt["rung"].cell(),
        receipt["scheme"].cell(),
        *(receipt["metrics"][name].cell(".5g", missing=absent) for name in metrics),
        absent if skipped else receipt["size_bytes"].cell(",d"),
        receipt["seconds"].cell(".1f"),
        receipt["example_ms"].cell(".3g") if receipt["example_ms"].value else "not measured",
        receipt["accepted"].cell(),
        reasons or "none",
    )


def _curve(histories: Node, metric: str) -> Figure | None:
    found = [
        (f"{loop}, {split}", histories[loop][prefix + metric])
        for loop, (prefix, split) in itertools.product(histories.names, (("", "train"), ("val_", "eval")))
    ]
    found = [(name, values) for name, values in found if list(values)]
    if not found:
        return None
    drawn = found[:_MOST_LINES]
    epochs = max(len(list(values)) for _, values in found)
    rows = [
        row(str(epoch + 1), *(values[epoch].cell(".5g", missing="none") for _, values in found))
        for epoch in range(epochs)
    ]
    ends = ", ".join(f"{name} {list(values)[-1].cell('.5g').text}" for name, values in drawn)
    return Figure(
        svg=charts.lines(
            [charts.Line(label=name, values=tuple(one.number or 0.0 for one in values)) for name, values in drawn],
            metric,
        ),
        alt=f"{metric} by epoch, at the end: {ends}.",
        table=table(f"{metric} by epoch", ("epoch", *(name for name, _ in found)), rows),
    )
