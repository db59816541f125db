"""Which predictions flip from the float to the integer model: by class, from which class to which, and examples."""

from collections.abc import Iterator, Sequence

from components.evaluation.measurements import FLOAT
from components.report import charts
from components.report.facts import Cell, Node
from components.report.layout import Figure, Row, Section, Table, row, table
from components.report.sections import pairs

_DRAWN = 30
_LISTED = 300
_MOST_CLASSES = 12  # in a matrix
_MOST_PAIRS = 50
_MOST_PICTURE_BYTES = 500_000  # of 2 MB that a page may have
_VALUES = 8


def section(root: Node) -> Section:
    """Returns the flips of each output with classes."""
    found = [pair for pair in pairs.overall(root, FLOAT) if pair["by_class"].value]
    figures = [_by_class(root, pair) for pair in found]
    tables, missing = [], [] if figures else ["There are no classes to count flips by."]
    outputs = list(root["flips"]["flips"])
    for output in outputs:
        listed = len(list(output["pairs"]))
        if listed:
            figures.append(_confusion(root, output))
        if listed > _MOST_PAIRS:
            missing.append(f"{listed - _MOST_PAIRS} rarer pairs of classes{_where(output)} are in flips.json alone.")
    if found and not outputs:
        missing.append("From which class to which is not recorded.")
    examples = [(output, example) for output in outputs for example in output["examples"]]
    shown = _with_room(examples)
    if shown:
        tables.append(_examples(root, shown))
    if len(shown) < len(examples):
        missing.append(f"{len(examples) - len(shown)} more examples are in flips.json alone.")
    if outputs and not examples:
        flipped = any(list(output["pairs"]) for output in outputs)
        missing.append("Nobody asked for examples that flipped." if flipped else "No example flipped.")
    notes = (
        "A prediction flips where the integer model says another class than the float model. Where both are wrong, that"
        " changes no accuracy.",
    )
    return Section(
        id="flips",
        title="Flips",
        notes=notes if found or outputs else (),
        missing=tuple(missing),
        figures=tuple(figures),
        tables=tuple(tables),
    )


def _by_class(root: Node, pair: Node) -> Figure:
    of_class = list(pair["by_class"])[:_LISTED]
    names = [_class(root, pair["output"].text, index).text for index in range(len(of_class))]
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
    where = _where(pair)
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


def _confusion(root: Node, output: Node) -> Figure:
    """How many examples flip from which class to which; the document has the most frequent first."""
    listed = list(output["pairs"])
    said = _most([pair["float"] for pair in listed])
    ours = _most([pair["integer"] for pair in listed])
    counts = {(pair["float"].value, pair["integer"].value): pair["examples"].number or 0.0 for pair in listed}
    name = output["output"].text
    rows = [
        row(
            _class(root, name, pair["float"]),
            _class(root, name, pair["integer"]),
            pair["examples"].cell(",d"),
            pair["only_float_right"].cell(",d"),
            pair["only_integer_right"].cell(",d"),
        )
        for pair in listed[:_MOST_PAIRS]
    ]
    most, where = rows[0].cells, _where(output)
    head = ("float says", "integer says", "examples", "only float right", "only integer right")
    return Figure(
        svg=charts.matrix(
            [_class(root, name, one).text for one in said],
            [_class(root, name, one).text for one in ours],
            [[counts.get((one.value, other.value), 0.0) for other in ours] for one in said],
            ("integer says", "float says"),
        ),
        alt=f"Flips{where} from the class that float says to that which integer says; the most frequent:"
        f" {most[0].text} to {most[1].text}, {most[2].text} examples.",
        table=table(f"Flips{where}, the most frequent first", head, rows),
    )


def _most(classes: Sequence[Node]) -> list[Node]:
    """Those classes that come first, each once, by their numbers."""
    found = {one.value: one for one in reversed(classes)}
    first = list(dict.fromkeys(one.value for one in classes))[:_MOST_CLASSES]
    return [found[value] for value in sorted(first)]


def _with_room(examples: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """As many examples as a page has room for."""
    shown: list[tuple[Node, Node]] = []
    used = 0
    for output, example in examples:
        used += sum(len(given["picture"].text) for given in example["inputs"])
        if used > _MOST_PICTURE_BYTES or len(shown) == _LISTED:
            break
        shown.append((output, example))
    return shown


def _examples(root: Node, examples: list[tuple[Node, Node]]) -> Table:
    several = len({output["output"].value for output, _ in examples}) > 1
    names = list(dict.fromkeys(given["name"].text for _, example in examples for given in example["inputs"]))
    head = (*names, *(("output",) if several else ()), "label", "float says", "score", "integer says", "score")
    rows = [
        Row(
            cells=(
                *_inputs(example, names),
                *((Cell(text=output["output"].text),) if several else ()),
                *_answers(root, output["output"].text, example),
            )
        )
        for output, example in examples
    ]
    caption = (
        "Examples that flipped, those first of which float was surest: by the margin, which is what it gave to its own"
        " class more than to that which integer says"
    )
    return table(caption, (*head, "margin"), rows)


def _inputs(example: Node, names: list[str]) -> Iterator[Cell]:
    given = {one["name"].text: one for one in example["inputs"]}
    for name in names:
        one = given.get(name, Node(None))
        picture = one["picture"].picture(f"what the models saw as {name}")
        if picture is not None:
            yield picture
            continue
        values = list(one["values"])
        text = ", ".join(value.cell(".4g", missing="no number").text for value in values[:_VALUES])
        more = ", ..." if len(values) > _VALUES else ""
        yield Cell(text=f"{text}{more}" or "none", path=one["values"].path, missing=not values)


def _answers(root: Node, output: str, example: Node) -> Iterator[Cell]:
    yield _class(root, output, example["label"])
    for model in ("float", "integer"):
        yield _class(root, output, example[model]["class"])
        yield example[model]["score"].cell(".4f", missing="no number")
    yield example["margin"].cell(".4f", missing="no number")


def _class(root: Node, output: str, number: Node | int) -> Cell:
    """A class by its name, if the contract has one."""
    index = number.value if isinstance(number, Node) else number
    outputs = list(root["contract"]["outputs"])
    found = [one for one in outputs if one["name"].value == output] or (outputs if len(outputs) == 1 else [])
    named = found[0]["labels"][index] if found else Node(None)
    return Cell(text=str(named.value), path=named.path) if named else Cell(text=f"class {index}")


def _where(output: Node) -> str:
    return f" of output {output['output'].text}" if output["output"].text else ""
