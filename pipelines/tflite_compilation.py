"""Compiles .tflite files for a target, without a pipeline: one, several that share an Edge TPU, or one for several."""

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from components.targets import COMPILER_DIR, CompiledModel, CompileError, Target, load_target
from components.targets.edge_tpu import EdgeTpu
from components.targets.edge_tpu.group import CompiledGroup, GroupMember
from pipelines import new_directory
from pipelines.columns import print_line, print_table
from pipelines.file_inspection import first_op_not_there


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompileRequest:
    """What is compiled.

    Attributes:
      sources: Paths of integer-only .tflite files; several share the memory of one Edge TPU.
      target: Name of the target.
      output: The directory to write; it must not exist yet.
      options: Options of the target's compiler by name, as text: JSON where it is some, such as 13 or true.
      calls: How often in a second each of several models runs, by the name of its file without ".tflite".
      segments: Into how many files to split the only model, for as many Edge TPUs in a pipeline.
    """

    sources: tuple[Path, ...]
    target: str
    output: Path
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    calls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    segments: int = 1


def compile_and_show(request: CompileRequest, console: Console) -> None:
    """Compiles and writes files and reports; shows what runs where.

    Raises:
      CompileError: If the compiler fails or is not there; no output is written then, and what the compiler wrote is
        kept beside it.
      ValueError: For a mistake in what was asked, before anything is compiled.
    """
    new_directory.require_new(request.output)
    target = load_target(request.target)
    models, options = _read(request.sources), _options(request, target)
    members = _members(models, request)
    if not isinstance(target, EdgeTpu) and (len(models) > 1 or request.segments > 1):
        raise ValueError(
            f"{target.name} compiles one model, to one file; several at once, or --segments, edge_tpu alone"
        )
    with new_directory.writing(request.output) as partial, console.status("compiling"):
        written = partial / COMPILER_DIR
        (name, tflite), *others = models.items()
        try:
            if isinstance(target, EdgeTpu) and others:
                made: CompiledModel | CompiledGroup = target.compile_group(members, options, written)
            elif isinstance(target, EdgeTpu) and request.segments > 1:
                made = target.compile_segments(tflite, options, written)
            else:
                made = target.compile(tflite, "fail", options, written)
        except CompileError as error:
            _keep(written, request.output, error)
            raise
        if isinstance(made, CompiledGroup):
            made.write(partial)
        else:
            _write(made, name, target.name, partial)
    _show(request.output, made.models if isinstance(made, CompiledGroup) else {name: made}, console)
    if isinstance(made, CompiledGroup):
        _show_orders(made, console)


def _options(request: CompileRequest, target: Target) -> str:
    """The options of the compiler as JSON, checked."""
    chosen = {name: _value(text) for name, text in request.options.items()}
    if "num_segments" in chosen and isinstance(target, EdgeTpu):
        raise ValueError("--option num_segments: give --segments instead")
    options = target.require_options(json.dumps(chosen))
    if request.segments == 1:
        return options
    if len(request.sources) > 1:
        raise ValueError(f"--segments: got {len(request.sources)} models, expected one to split")
    return json.dumps({**json.loads(options), "num_segments": request.segments})


def _value(text: str) -> Any:
    """What an option's text says as JSON, which names and paths are not."""
    try:
        return json.loads(text)
    except ValueError:  # also a number of too many digits
        return text


def _read(sources: tuple[Path, ...]) -> dict[str, bytes]:
    """The models by the names of their files, of letters that a compiled file's name may have."""
    names = [re.sub(r"[^A-Za-z0-9_-]", "_", source.stem) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"models: got {', '.join(twice)} more than once, expected names with other letters and digits")
    return {name: source.read_bytes() for name, source in zip(names, sources, strict=True)}


def _members(models: Mapping[str, bytes], request: CompileRequest) -> list[GroupMember]:
    """The models with what `--calls` says of them; raises ValueError if it names others, or no numbers."""
    stems = dict(zip((source.stem for source in request.sources), models, strict=True))
    unknown = sorted(request.calls.keys() - stems.keys())
    if unknown or (request.calls and len(models) < 2):
        raise ValueError(
            f"--calls: got {', '.join(request.calls)}, expected some of {', '.join(stems)}, and several models"
        )
    try:
        rates = {stems[stem]: float(text) for stem, text in request.calls.items()}
    except ValueError as error:
        raise ValueError(f"--calls: got {', '.join(request.calls.values())}, expected numbers") from error
    return [
        GroupMember(name=name, tflite=tflite, calls_per_second=rates.get(name, 1.0)) for name, tflite in models.items()
    ]


def _keep(written: Path, output: Path, error: CompileError) -> None:
    """Copies what the compiler wrote to a new directory beside the output that there will not be."""
    if not written.is_dir():
        return
    kept = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        kept = Path(tempfile.mkdtemp(prefix=f"{output.name}.failed.", dir=output.parent))
        shutil.copytree(written, kept, dirs_exist_ok=True)
        (kept / "error.log").write_text(error.log, errors="replace")
    except OSError as problem:
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)
        why = "not all files could be copied" if isinstance(problem, shutil.Error) else problem
        error.add_line(f"What the compiler wrote could not be kept: {why}")
    else:
        error.add_line(f"All that the compiler wrote is in {kept}")


def _write(model: CompiledModel, name: str, target: str, directory: Path) -> None:
    """Writes file and report; only what a compiler made is named as such."""
    suffix = f"_{target.replace('_', '')}" if model.report.compiled else ""
    (directory / f"{name}{suffix}.tflite").write_bytes(model.tflite)
    (directory / f"{name}_report.json").write_text(model.report.to_json())


def _show(output: Path, models: Mapping[str, CompiledModel], console: Console) -> None:
    rows = []
    for name, model in models.items():
        report = model.report
        sizes = (report.memory.cached_bytes, report.memory.streamed_bytes)
        counts = (len(model.tflite), report.ops_on_target, report.ops_on_cpu, *sizes)
        rows.append((name, *("-" if count is None else f"{count:,}" for count in counts)))
    report = next(iter(models.values())).report
    how = f"compiled by {report.tool}" if report.compiled else f"not compiled: {report.target} has no compiler"
    print_line(console, f"{output}: {how}", "bold")
    header = ("model", "bytes", f"ops on {report.target}", "other ops", "cached bytes", "streamed bytes")
    print_table(console, header, rows, [""] * len(rows))
    for name, model in models.items():
        for problem in model.report.problems:
            print_line(console, f"{name}: {problem}", "yellow")
        latency = model.report.latency
        if latency is not None:
            print_line(console, f"{name}: {latency.ms:g} ms, {latency.kind}: {latency.basis}")
        breaking = model.report.first_breaking_op
        if breaking is not None:
            print_line(console, f"{name}: {first_op_not_there(breaking)}", "yellow")


def _show_orders(group: CompiledGroup, console: Console) -> None:
    rows = [
        (", ".join(order), "not known, or not compiled" if traffic is None else f"{traffic:,.0f}")
        for order, traffic in group.orders
    ]
    if rows:
        console.print()
        styles = ["bold" if order == tuple(group.models) else "" for order, _ in group.orders]
        print_table(console, ("order", "streamed bytes per second"), rows, styles)
