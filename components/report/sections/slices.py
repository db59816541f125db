"""Where integer and float differ by slice."""

from components.report import charts
from components.report.facts import Node
from components.report.layout import Figure, Section, row, table
from components.report.sections import pairs

_DRAWN = 30
_LISTED = 300


def section(root: Node) -> Section:
    """Returns the change of accuracy by slice, the worst first."""
    found = [pair for pair in pairs.sliced(root) if pair["difference"]]
    found.sort(key=lambda pair: pair["difference"].number or 0.0)
    if not found:
        missing = ("No slices with classes were evaluated.",)
        return Section(id="slices", title="Change of accuracy by slice", missing=missing)
    listed = found[:_LISTED]
    rows = [row(_slice(pair), *pairs.cells(pair)) for pair in listed]
    drawn = [
        charts.Bar(
            label=_slice(pair),
            value=pair["difference"].number or 0.0,
            text=pair["difference"].cell("+.4f").text,
            low=pair["low"].number,
            high=pair["high"].number,
            marked=(pair["difference"].number or 0.0) < 0,
        )
        for pair in listed[:_DRAWN]
    ]
    worst = drawn[0]
    figure = Figure(
        svg=charts.bars(drawn, "accuracy of integer minus that of float, with interval", points=True),
        alt=f"Change of accuracy from float to integer, {len(drawn)} slices; the lowest: {worst.text}, {worst.label}.",
        table=table(
            "Accuracy of integer minus that of float, by slice, the lowest first",
            ("slice", *pairs.HEAD),
            rows,
        ),
    )
    notes = (f"Drawn are the {_DRAWN} lowest of {len(found)}.",) if len(found) > _DRAWN else ()
    left = (f"{len(found) - _LISTED} slices of higher change are in paired.json alone.",)
    return Section(
        id="slices",
        title="Change of accuracy by slice",
        notes=notes + (left if len(found) > _LISTED else ()),
        figures=(figure,),
    )


def _slice(pair: Node) -> str:
    cut = " and ".join(f"{one[0].value} = {one[1].value}" for one in pair["slice"])
    return f"{pair['output'].text}: {cut}" if pair["output"].text else cut
