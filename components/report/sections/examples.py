"""The examples behind the model: which calibrated it, and how far those of its run had drifted from the baseline's."""

from components.report.facts import Node
from components.report.layout import Section, Table, row, table


def section(root: Node) -> Section:
    """Returns the calibration sets and the drift of each feature."""
    tables = (
        _sets(root["conversion"]["calibration_sets"]),
        _distances("Drift from the examples of the last blessed model", root["drift"]),
        _distances("How far the calibration sample is from its split", root["representative"]),
    )
    missing = []
    if not tables[0].rows:
        missing.append("No examples are recorded that calibrated it: training gave all ranges, or nobody noted them.")
    if not tables[1].rows:
        missing.append(root["drift"]["no_baseline"].text or "Drift was not measured.")
    return Section(
        id="examples",
        title="Calibration examples and drift",
        missing=tuple(missing),
        tables=tuple(one for one in tables if one.rows),
    )


def _sets(sets: Node) -> Table:
    names = ("by", "examples", "split", "artifact", "span", "seed", "chosen", "sha256")
    rows = [row(*(one[name].cell(missing="not recorded") for name in names)) for one in sets]
    return table("Examples that calibrated ranges", names, rows)


def _distances(caption: str, found: Node) -> Table:
    rows = [
        row(one["feature"].cell(), one["against"].cell(), one["measure"].cell(), one["distance"].cell(".4f"))
        for one in found["distances"]
    ]
    return table(caption, ("feature", "compared with", "measure", "distance, 0 to 1"), rows)
