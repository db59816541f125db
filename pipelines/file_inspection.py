"""Shows what a .tflite file is, from anywhere: inputs and outputs, where each op runs, and what its audit finds.

Neither TensorFlow nor any compiler is imported or run: a file is read and rules are applied.
"""

import collections
import dataclasses
import json
import math
import sys
from collections.abc import Mapping as Table
from pathlib import Path

from rich.console import Console

from components.evaluation.gate import MACS_ON_TARGET
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import Audit, audit
from components.quantization.conversion.deployed_audit import float_edges, with_float_edges
from components.quantization.macs import macs
from components.target_gates.target_facts import target_facts
from components.targets import BreakingOp, CompileReport, Mapping, Share, inspect_file, load_target, placed_ops
from pipelines.columns import print_line, print_table


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FileRequest:
    """What is asked of a file.

    Attributes:
      source: Its path.
      target: Name of the target whose rules are applied.
      options: Options of the target's inspection, as text, by name.
      min_mapped_macs: The least share of the multiplications that the target must run, 0..1; None for any.
      as_json: Whether JSON is written instead of text.
    """

    source: str
    target: str
    options: Table[str, str] = dataclasses.field(default_factory=dict)
    min_mapped_macs: float | None = None
    as_json: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Inspected:
    content: bytes
    graph: flatbuffer.Subgraph
    mapping: Mapping
    report: CompileReport
    audit: Audit


def options_of(texts: tuple[str, ...], option: str = "--option") -> dict[str, str]:
    """Returns options by name, of texts such as "api_level=30".

    Args:
      texts: The texts.
      option: Of the command line, that they were given as.

    Raises:
      ValueError: If a text has no "=", or a name occurs twice; lists them all.
    """
    pairs = [text.partition("=") for text in texts]
    names = [name for name, _, _ in pairs]
    wrong = [text for text, (name, equals, _) in zip(texts, pairs, strict=True) if not (name and equals)]
    wrong += sorted({f"{name} twice" for name in names if names.count(name) > 1})
    if wrong:
        raise ValueError(f"{option}: got {', '.join(wrong)}, expected NAME=VALUE, each name once")
    return {name: value for name, _, value in pairs}


def inspect_and_show_file(request: FileRequest, console: Console) -> int:
    """Shows a file: op by op on the target or the CPU, and its audit; or all of it as JSON.

    Returns:
      The exit status: 0; 1 if the audit finds what prevents that the file runs on the target, or too few
      multiplications do.

    Raises:
      ValueError: If it is no TFLite file, or a broken one, or the options are none of the target's.
    """
    if request.min_mapped_macs is not None and math.isnan(request.min_mapped_macs):
        raise ValueError("--min-mapped-macs: got nan, expected a share from 0 to 1")
    content = _read(Path(request.source))
    mapping, report = inspect_file(load_target(request.target), content, request.options)
    found = _Inspected(
        content=content,
        graph=flatbuffer.read_subgraphs(content)[0],
        mapping=mapping,
        report=report,
        audit=audit(content, request.target),
    )
    share = _mapped_macs(report)
    if request.as_json:
        sys.stdout.write(_as_json(request, found))
    else:
        _show_edges(request, found, console)
        _show_ops(found, console)
        _show_report(report, share, console)
        _show_audit(found, console)
    enough = request.min_mapped_macs is None or (share is not None and share >= request.min_mapped_macs)
    if not enough and not request.as_json:
        text = (
            f"{_percent(share)} of the multiplications run on {request.target}, expected {request.min_mapped_macs:.1%}"
        )
        print_line(console, text, "red")
    return int(not found.audit.ready or not enough)


def _read(path: Path) -> bytes:
    """The file; only its head if that is no TFLite model's, since any large file may be named as one."""
    with path.open("rb") as file:
        head = file.read(flatbuffer.HEAD_BYTES)
        return head + file.read() if flatbuffer.is_tflite(head) else head


def _mapped_macs(report: CompileReport) -> float | None:
    """The target's share of the multiplications; without any, whether all ops are on the target; None if unknown."""
    share = target_facts(dataclasses.asdict(report)).get(MACS_ON_TARGET)
    return None if share is None else float(share)


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{share:.1%}"


def _number(count: int | None) -> str:
    return "an unknown number" if count is None else f"{count:,}"


def _both(report: CompileReport) -> tuple[Share, Share]:
    return report.on_target or Share(ops=0), report.on_cpu or Share(ops=0)


def _as_json(request: FileRequest, found: _Inspected) -> str:
    """What the text says: where each op runs, the report of the schema of all targets, and the audit."""
    result = {
        "source": request.source,
        "bytes": len(found.content),
        "target": request.target,
        "options": dict(request.options),
        "mapped_macs": _mapped_macs(found.report),
        "mapping": placed_ops(found.mapping, found.content),
        "report": json.loads(found.report.to_json()),
        "audit": found.audit.to_dict(),
    }
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


def _show_edges(request: FileRequest, found: _Inspected, console: Console) -> None:
    options = "".join(f", {name} {value}" for name, value in request.options.items())
    size = f"{len(found.content):,} bytes, {len(found.graph.ops)} ops"
    print_line(console, f"{request.source}: {size}, target {request.target}{options}", "bold")
    for kind, indices in (("input", found.graph.inputs), ("output", found.graph.outputs)):
        for tensor in (found.graph.tensors[index] for index in indices):
            grid = ""
            if tensor.scale and tensor.zero_point:
                grid = f", scale {tensor.scale[0]:g}, zero point {tensor.zero_point[0]}"
            print_line(console, f"{kind} {tensor.name}: {tensor.dtype.lower()} {list(tensor.shape)}{grid}")


def _show_ops(found: _Inspected, console: Console) -> None:
    rows, styles = [], []
    for op, placed in zip(found.graph.ops, found.mapping.ops, strict=True):
        where = found.mapping.target if placed.on_target else "CPU"
        why = f"{placed.status}: {placed.reason}" if placed.reason else placed.status
        rows.append((str(op.index), placed.op, where, f"{macs(op, found.graph):,}", why))
        styles.append("" if placed.on_target else "yellow")
    print_table(console, ("index", "op", "runs on", "MACs", "why"), rows, styles)


def _show_report(report: CompileReport, share: float | None, console: Console) -> None:
    there, cpu = _both(report)
    ops = f"{there.ops} of {there.ops + cpu.ops} ops run on {report.target}, by its rules"
    print_line(console, ops, "" if there.ops else "red")
    print_line(
        console,
        f"multiplications: {_number(there.macs)} on {report.target} ({_percent(share)}),"
        f" {_number(cpu.macs)} on the CPU; parameters: {_number(there.parameters)} on {report.target},"
        f" {_number(cpu.parameters)} on the CPU",
    )
    for problem in report.problems:
        print_line(console, problem, "yellow")
    breaking = report.first_breaking_op
    if breaking is not None:
        print_line(console, first_op_not_there(breaking), "yellow")
    memory = report.memory
    basis = f" ({memory.basis})" if memory.basis else ""
    for name, size in (
        ("parameters cached on the target", memory.cached_bytes),
        ("parameters streamed to the target", memory.streamed_bytes),
        ("arena", memory.arena_bytes),
    ):
        if size is not None:
            print_line(console, f"{name}: {size:,} bytes{basis}")
    for name, value in report.measurements.items():
        print_line(
            console, f"{name.replace('_', ' ')}: {value:,g}" if value < 1 else f"{name.replace('_', ' ')}: {value:,.0f}"
        )


def first_op_not_there(breaking: BreakingOp) -> str:
    """Returns what a report says of the first op that is not on the target, as one line."""
    layer = f", layer {breaking.layer}" if breaking.layer else ""
    edit = f"; {breaking.edit}" if breaking.edit else ""
    return f"first op not there: {breaking.index} {breaking.op}{layer}: {breaking.status}{edit}"


def _show_audit(found: _Inspected, console: Console) -> None:
    floats = float_edges(found.graph)
    inside = with_float_edges(found.audit, found.graph, floats)
    console.print()
    print_line(console, str(found.audit), "" if found.audit.ready else "red")
    if inside.integer_only and not found.audit.integer_only:
        print_line(console, f"but for {', '.join(floats)}, floats outside of one QUANTIZE or DEQUANTIZE: integer-only")
    for note in found.audit.notes:
        print_line(console, f"note: {note.op} {note.tensor}: {note.reason}", "yellow")
    if not found.audit.ready:
        print_line(console, _why_not_ready(found), "red")


def _why_not_ready(found: _Inspected) -> str:
    """Returns one sentence: how often each rule is broken, and what to do about the first."""
    broken = collections.Counter(offender.rule for offender in found.audit.offenders)
    counts = ", ".join(f"{rule} {count} times" if count > 1 else rule for rule, count in broken.items())
    return f"not ready for {found.mapping.target}: breaks {counts}; first of all: {found.audit.offenders[0].fix}"
