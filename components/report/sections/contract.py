"""What goes in and comes out of the file."""

from components.report.facts import Node
from components.report.layout import Section, row, table

_HEAD = ("tensor", "way", "dtype", "shape", "layout", "scale", "zero point", "lowest", "highest", "labels")


def section(root: Node) -> Section:
    """Returns inputs and outputs with the numbers that a client needs."""
    found = root["contract"]
    rows = [
        row(
            one["name"].cell(),
            way,
            one["dtype"].cell(),
            one["shape"].cell(),
            one["layout"].cell(missing="not known"),
            one["scale"].cell(".8g", missing="not quantized"),
            one["zero_point"].cell("d", missing="not quantized"),
            one["real_min"].cell(".6g", missing="unbounded"),
            one["real_max"].cell(".6g", missing="unbounded"),
            _labels(one["labels"]),
        )
        for way, key in (("input", "inputs"), ("output", "outputs"))
        for one in found[key]
    ]
    if not rows:
        return Section(id="contract", title="I/O contract", missing=("The file has no I/O contract.",))
    prepared = [
        row(one["name"].cell(), *(one["preparation"][name].cell() for name in ("source", "kind")), _verified(one))
        for one in found["inputs"]
        if one["preparation"]
    ]
    tables = [table("Inputs and outputs; real = scale * (integer - zero point)", _HEAD, rows)]
    if prepared:
        tables.append(table("How inputs are made", ("input", "from feature", "by", "verified with"), prepared))
    return Section(id="contract", title="I/O contract", tables=tuple(tables))


def _labels(labels: Node) -> str:
    names = [str(one.value) for one in labels]
    return ", ".join(names[:10]) + (f", and {len(names) - 10} more" if len(names) > 10 else "") if names else "none"


def _verified(one: Node) -> str:
    found = one["preparation"]["verified"]
    if not found:
        return "not recorded"
    return f"{found['count'].value} by {found['method'].text}, {found['mismatches'].value} mismatches"
