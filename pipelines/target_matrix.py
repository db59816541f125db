"""What one trained model came to on each of its targets: a table for people, and the same as JSON."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.model_artifact import COMPILE_REPORT_FILE
from pipelines.summary import RunSummary

MATRIX_JSON, MATRIX_MARKDOWN = "targets.json", "targets.md"

_HEADS = (
    *("target", "blessed", "float", "integer", "drop", "ops on target", "MACs on target", "bytes", "latency"),
    *("compiled", "pushed"),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TargetRow:
    """What a run came to on one target.

    Attributes:
      target: Its name.
      blessed: Whether all gates hold, and the model passed its smoke test.
      metric: Name of the metric that the accuracies are.
      float_accuracy: That of the float model on the eval split.
      integer_accuracy: That of the integer model.
      ops_on_target: Ops that run on the target.
      ops: All ops.
      macs_on_target: Multiplications and additions there; None if it is not known which ops they are.
      macs: All of them; the same.
      model_bytes: Size of the integer model.
      latency: Time of one inference, or its cycles, with the basis; "" where the report has neither.
      basis: What ops, multiplications and latency are by: the compiler, or the target's rules.
      compiled: Whether the target's compiler made what is pushed.
      pushed_version: The version that was pushed; "" if none was.
      reasons: What the gates and the smoke test said.
    """

    target: str
    blessed: bool
    metric: str
    float_accuracy: float
    integer_accuracy: float
    ops_on_target: int
    ops: int
    macs_on_target: int | None
    macs: int | None
    model_bytes: int
    latency: str
    basis: str
    compiled: bool
    pushed_version: str
    reasons: tuple[str, ...]

    @property
    def drop(self) -> float:
        """How far the integer model's accuracy lies below the float model's."""
        return self.float_accuracy - self.integer_accuracy


def row_of(summary: RunSummary) -> TargetRow:
    """Returns the row of a target, with the figures of its compiler's report."""
    report: dict[str, Any] = json.loads(
        io_utils.read_string_file(os.path.join(summary.report_uri, COMPILE_REPORT_FILE))
    )
    there, cpu = report["on_target"]["macs"], report["on_cpu"]["macs"]
    known = there is not None and cpu is not None
    return TargetRow(
        target=summary.target,
        blessed=summary.blessed,
        metric=summary.metric,
        float_accuracy=summary.float_accuracy,
        integer_accuracy=summary.int8_accuracy,
        ops_on_target=summary.ops_on_target,
        ops=summary.ops_on_target + summary.ops_on_cpu,
        macs_on_target=there if known else None,
        macs=there + cpu if known else None,
        model_bytes=summary.int8_bytes,
        latency=_latency(report),
        basis=summary.compiler,
        compiled=summary.compiled,
        pushed_version=summary.pushed_version,
        reasons=summary.reasons,
    )


def _latency(report: dict[str, Any]) -> str:
    if report["latency"]:
        latency = report["latency"]
        return f"{latency['ms']:.4g} ms, {latency['kind']} ({latency['basis']})"
    cycles = report["measurements"].get("cycles")
    return f"{cycles:,.0f} cycles ({report['tool']})" if cycles is not None else ""


def matrix_json(rows: Sequence[TargetRow]) -> str:
    """Returns the rows as indented JSON, what is no number as null."""
    fields = [{**dataclasses.asdict(row), "drop": row.drop} for row in rows]
    finite = [{key: None if value != value else value for key, value in row.items()} for row in fields]
    return json.dumps({"targets": finite}, indent=2, allow_nan=False) + "\n"


def matrix_cells(rows: Sequence[TargetRow]) -> list[tuple[str, ...]]:
    """Returns the table, its heads first."""
    return [_HEADS, *map(_cells, rows)]


def _cells(row: TargetRow) -> tuple[str, ...]:
    known = row.macs_on_target is not None and row.macs
    return (
        row.target,
        "yes" if row.blessed else "no",
        f"{row.float_accuracy:.4f}",
        f"{row.integer_accuracy:.4f}",
        f"{row.drop:+.4f}",
        f"{row.ops_on_target} of {row.ops}",
        f"{(row.macs_on_target or 0) / (row.macs or 1):.1%} of {row.macs:,}" if known else "unknown",
        f"{row.model_bytes:,}",
        row.latency or "unknown",
        f"by {row.basis}" if row.compiled else f"no: {row.basis}",
        row.pushed_version or "no",
    )


def matrix_markdown(rows: Sequence[TargetRow]) -> str:
    """Returns the table as Markdown, then each target's reasons."""
    heads, *body = matrix_cells(rows)
    lines = [_line(heads), _line(["---"] * len(heads)), *map(_line, body), ""]
    for row in rows:
        lines += [f"{row.target}, {row.metric}:", "", *(f"- {reason}" for reason in row.reasons), ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_matrix(rows: Sequence[TargetRow], root: str) -> str:
    """Writes both files under a run's root; returns the path of the one for people."""
    fileio.makedirs(root)
    io_utils.write_string_file(os.path.join(root, MATRIX_JSON), matrix_json(rows))
    path = os.path.join(root, MATRIX_MARKDOWN)
    io_utils.write_string_file(path, matrix_markdown(rows))
    return path
