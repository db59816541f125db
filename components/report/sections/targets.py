"""What one trained model came to on each of its targets."""

from components.report.facts import Cell, Node
from components.report.layout import Row, Section, row, table
from components.report.sections import accuracy, size, target, verdict

DOCUMENTS = ("verdict", "smoke_test", "paired", "compile_report", "compiled_model")
"""What of a target's documents stands under "targets", by the name of the target, beside "pushed_to"."""
_HEAD = (
    *("target", "verdict", "integer accuracy", "float accuracy", "ops on target", "ops on CPU", "MACs on target"),
    *("MACs on CPU", "bytes of the file", "streamed bytes", "latency, ms", "made by", "pushed to"),
)


def section(root: Node) -> Section:
    """Returns the table of all targets of a run."""
    rows = [_row(name, root["targets"][name]) for name in root["targets"].names]
    return Section(
        id="targets",
        title="All targets of the run",
        tables=(table("The same trained model on each target", _HEAD, rows),),
    )


def _row(name: str, of: Node) -> Row:
    report = of["compile_report"]
    figures = dict(accuracy.headline(of))
    is_blessed = verdict.is_blessed(of)
    made = report["tool"].cell(missing="not recorded")
    return row(
        name,
        "blessed" if is_blessed else "not blessed",
        figures["integer accuracy"],
        figures["float accuracy"],
        *(cell for _, cell in target.headline(of)),
        report["on_target"]["macs"].cell(",d", missing="not known"),
        report["on_cpu"]["macs"].cell(",d", missing="not known"),
        size.headline(of)[1],
        report["memory"]["streamed_bytes"].cell(",d", missing="not known"),
        report["latency"]["ms"].cell(".4g"),
        made if report["compiled"].value else Cell(text=f"not compiled; {made.text}", path=made.path),
        of["pushed_to"].text or "nowhere",
        mark="" if is_blessed else "not blessed",
    )
