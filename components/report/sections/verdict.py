"""What the gates and the smoke test said, with all reasons."""

from components.evaluation.verdict import PASSING
from components.report.facts import Node
from components.report.layout import Row, Section, Table, row, table

_HEAD = ("reason", "result", "got", "limit", "slice", "examples")


def section(root: Node) -> Section:
    """Returns the reasons of the verdict, those that refuse the model first."""
    gates, smoke = root["verdict"], root["smoke_test"]
    missing = [] if gates else ["The verdict of the gates is not there."]
    if not smoke:
        missing.append("The smoke test was not done before this page was made.")
    tables = [_reasons(f"{who}: {_word(one)}", one) for who, one in (("Gates", gates), ("Smoke test", smoke)) if one]
    return Section(id="verdict", title="Verdict and reasons", missing=tuple(missing), tables=tuple(tables))


def is_blessed(root: Node) -> bool:
    """Whether the gates and, where it was done, the smoke test bless the model."""
    smoke = root["smoke_test"]["blessed"]
    return root["verdict"]["blessed"].value is True and smoke.value is not False


def _word(verdict: Node) -> str:
    return "blessed" if verdict["blessed"].value is True else "not blessed"


def _reasons(caption: str, verdict: Node) -> Table:
    rows = [_reason(reason) for reason in verdict["reasons"]]
    return table(caption, _HEAD, sorted(rows, key=lambda one: one.mark == ""))


def _reason(reason: Node) -> Row:
    cut = " and ".join(f"{pair[0].value} = {pair[1].value}" for pair in reason["slice"])
    return row(
        reason["text"].cell(),
        reason["code"].cell(),
        reason["got"].cell("g", missing="no value"),
        reason["limit"].cell("g", missing="none"),
        f"{cut}, output {reason['output'].text}" if reason["output"].text else cut or "all examples",
        reason["examples"].cell(",d") if reason["examples"].value else "not counted",
        mark="" if reason["code"].value in PASSING else "refuses",
    )
