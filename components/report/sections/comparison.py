"""Where integer and float differ: by class and by slice."""

from components.evaluation.measurements import FLOAT
from components.report import charts
from components.report.facts import Node
from components.report.layout import Figure, Row, Section, row, table

_DRAWN = 30
_LISTED = 300


def classes(root: Node) -> Section:
    """Returns the flips by class, of each output with classes."""
    pairs = [pair for pair in root["paired"]["paired"] if pair["model"].value == FLOAT and pair["slice"].value == []]
    figures = tuple(_flips(pair, _labels(root, pair["output"].text)) for pair in pairs if pair["by_class"].value)
    return Section(
        id="classes",
        title="Flips by class",
        notes=("A flip is an example that one model has right and the other wrong.",) if figures else (),
        missing=(
            *(() if figures else ("There are no classes to count flips by.",)),
            "Which class a flipped example was taken for is not recorded.",
        ),
        figures=figures,
    )


def slices(root: Node) -> Section:
    """Returns the change of accuracy by slice, the worst first."""
    pairs = [pair for pair in root["paired"]["paired"] if pair["model"].value == FLOAT and pair["slice"].value]
    pairs = [pair for pair in pairs if pair["difference"]]
    pairs.sort(key=lambda pair: pair["difference"].number or 0.0)
    if not pairs:
        missing = ("No slices with classes were evaluated.",)
        return Section(id="slices", title="Change of accuracy by slice", missing=missing)
    listed = pairs[:_LISTED]
    rows = [_slice_row(pair) for pair in listed]
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
            ("slice", "change", "low", "high", "examples", "only integer right", "only float right"),
            rows,
        ),
    )
    notes = (f"Drawn are the {_DRAWN} lowest of {len(pairs)}.",) if len(pairs) > _DRAWN else ()
    left = (f"{len(pairs) - _LISTED} slices of higher change are in paired.json alone.",)
    return Section(
        id="slices",
        title="Change of accuracy by slice",
        notes=notes + (left if len(pairs) > _LISTED else ()),
        figures=(figure,),
    )


def _flips(pair: Node, labels: Node) -> Figure:
    of_class = list(pair["by_class"])[:_LISTED]
    names = [str(labels[index].value) if labels[index] else f"class {index}" for index in range(len(of_class))]
    rows = [
        row(
            name,
            one["examples"].cell(",d"),
            one["agreeing"].cell(",d"),
            one["better"].cell(",d"),
            one["worse"].cell(",d"),
            mark="lost" if (one["worse"].number or 0) > (one["better"].number or 0) else "",
        )
        for name, one in zip(names, of_class, strict=True)
    ]
    order = sorted(range(len(of_class)), key=lambda index: -(of_class[index]["worse"].number or 0))
    drawn = order[:_DRAWN] if len(order) > _DRAWN else range(len(order))
    where = f" of output {pair['output'].text}" if pair["output"].text else ""
    head = ("class", "examples", "same class", "only integer right", "only float right")
    return Figure(
        svg=charts.diverging(
            [names[index] for index in drawn],
            [of_class[index]["worse"].number or 0.0 for index in drawn],
            [of_class[index]["better"].number or 0.0 for index in drawn],
            ("only float is right", "only integer is right"),
        ),
        alt=f"Flips{where} in {len(drawn)} classes: {pair['better'].cell().text} examples that only integer has right,"
        f" {pair['worse'].cell().text} that only float has right.",
        table=table(f"Examples{where} by class", head, rows),
    )


def _labels(root: Node, output: str) -> Node:
    outputs = list(root["contract"]["outputs"])
    found = [one for one in outputs if one["name"].value == output] or (outputs if len(outputs) == 1 else [])
    return found[0]["labels"] if found else Node(None)


def _slice(pair: Node) -> str:
    cut = " and ".join(f"{one[0].value} = {one[1].value}" for one in pair["slice"])
    return f"{pair['output'].text}: {cut}" if pair["output"].text else cut


def _slice_row(pair: Node) -> Row:
    return row(
        _slice(pair),
        pair["difference"].cell("+.4f"),
        pair["low"].cell("+.4f"),
        pair["high"].cell("+.4f"),
        pair["examples"].cell(",d"),
        pair["better"].cell(",d"),
        pair["worse"].cell(",d"),
        mark="lost" if (pair["difference"].number or 0.0) < 0 else "",
    )
