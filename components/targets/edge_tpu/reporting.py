"""The report of a compilation: the log's figures, held against the model and the compiled file."""

import collections
import dataclasses
import re

from components.quantization.conversion import flatbuffer
from components.targets import (
    CompiledModel,
    CompileReport,
    Mapping,
    Memory,
    OpCount,
    OpMapping,
    Share,
    analysis,
    with_figures,
)
from components.targets._compiled_file import compiled_parts, ops_on_target
from components.targets.edge_tpu import mapping
from components.targets.edge_tpu.driver import Outcome
from components.targets.edge_tpu.edits import edit
from components.targets.edge_tpu.log import MAPPED, ModelLog, OperationRow, parse
from components.targets.edge_tpu.options import COMPILER, CUSTOM_OP, CompilerOptions


def compiled_model(
    outcome: Outcome, position: int, file_name: str, tflite: bytes, options: CompilerOptions
) -> CompiledModel:
    """Returns one compiled file with its report.

    Args:
      outcome: The compilation.
      position: Which of its models, or segments, it is, in the order of the log.
      file_name: Name of the compiled file.
      tflite: The model before.
      options: What the compiler was asked for; by them the rules tell statuses apart where the log has several for one
        op.
    """
    compiled = outcome.run.files[file_name]
    said, problems = _said_of(outcome, position, file_name)
    graph = flatbuffer.read_subgraphs(tflite)[0]
    counts = collections.Counter(op.code for op in graph.ops)
    problems += said.differences(counts)
    parts = compiled_parts(compiled, CUSTOM_OP)
    if said.subgraphs is not None and said.subgraphs != parts:
        problems += (f"{said.subgraphs} Edge TPU subgraphs in the log, but {parts} in the compiled file",)
    version = outcome.log.compiler_version or ""
    is_known = re.match(r"[1-9]\d{0,3}\.\d{1,4}\.", version)
    predicted = mapping.predict(tflite, **(options.generation(version) if is_known else options.generation()))
    report = CompileReport(
        target=predicted.target,
        compiled=True,
        tool=f"{COMPILER} {version or 'of unknown version'}",
        tool_version=version,
        ops=tuple(OpCount(op=r.op, count=r.count, on_target=r.on_tpu, status=r.status) for r in said.rows),
        log=outcome.run.output,
        subgraphs=said.subgraphs,
        memory=Memory(
            cached_bytes=round(said.on_chip_used.bytes) if said.on_chip_used else None,
            streamed_bytes=round(said.off_chip_streamed.bytes) if said.off_chip_streamed else None,
        ),
        measurements={} if outcome.log.compile_ms is None else {"compile_ms": float(outcome.log.compile_ms)},
        attempts=outcome.attempts,
        problems=problems,
    )
    on_tpu = ops_on_target(tflite, compiled, CUSTOM_OP)
    if on_tpu is None and said.rows_on_cpu == 0 and not problems:
        on_tpu = tuple(True for _ in graph.ops)
    if on_tpu is None:
        return CompiledModel(tflite=compiled, report=_without_places(report, said), mapping=None)
    told = said.rows_on_tpu if said.rows else said.ops_on_tpu
    if told is not None and sum(on_tpu) != told:
        problem = f"{told} operations on the Edge TPU in the log, but {sum(on_tpu)} by the compiled file"
        report = dataclasses.replace(report, problems=(*report.problems, problem))
    placed = _mapping(on_tpu, graph, said.rows, predicted)
    if not said.rows:
        report = dataclasses.replace(report, ops=analysis(placed).ops)
    return CompiledModel(tflite=compiled, report=with_figures(report, placed, tflite, edit), mapping=placed)


def _without_places(report: CompileReport, said: ModelLog) -> CompileReport:
    """The report where neither log nor file says which ops run on the Edge TPU, with their numbers as far as told."""
    problem = "neither the log nor the names in the compiled file tell which operations run on the Edge TPU"
    if not said.rows and said.ops_on_tpu is not None and said.ops_on_cpu is not None:
        shares = (Share(ops=said.ops_on_tpu), Share(ops=said.ops_on_cpu))
        report = dataclasses.replace(report, on_target=shares[0], on_cpu=shares[1])
    return dataclasses.replace(report, problems=(*report.problems, problem))


def _said_of(outcome: Outcome, position: int, file_name: str) -> tuple[ModelLog, tuple[str, ...]]:
    """What was said of one model: in standard output, and in its operation log if the table is only there."""
    log, models = outcome.log, outcome.log.models
    named = [model for model in models if (model.output_model or "").rpartition("/")[2] == file_name]
    said = named[-1] if named else models[position] if position < len(models) else ModelLog()
    problems = log.problems if named else (*log.problems, f"the log does not speak of {file_name}")
    operation_log = outcome.run.files.get(file_name.removesuffix(".tflite") + ".log")
    if not said.has_table and operation_log is not None:
        table = parse(operation_log.decode(errors="replace"))
        rows = table.models[0].rows if table.models else ()
        said = dataclasses.replace(said, rows=rows, has_table=bool(rows))
        problems = (*problems, *(f"operation log: {problem}" for problem in table.problems))
    return said, problems


def _mapping(
    on_tpu: tuple[bool, ...], graph: flatbuffer.Subgraph, rows: tuple[OperationRow, ...], predicted: Mapping
) -> Mapping:
    """Where each op runs, by the compiled file, with the log's statuses."""
    statuses: dict[str, list[str]] = collections.defaultdict(list)
    for row in rows:
        if not row.on_tpu:
            statuses[row.op].append(row.status)
    ops = []
    for op, there, rule in zip(graph.ops, on_tpu, predicted.ops, strict=True):
        said = statuses.get(op.code, [])
        status = rule.status if rule.status in said else " or ".join(said)
        agrees = rule.on_target == there and rule.status == status
        ops.append(
            OpMapping(
                index=op.index,
                op=op.name,
                on_target=there,
                status=MAPPED if there else status,
                reason=rule.reason if agrees else "",
            )
        )
    return Mapping(target=predicted.target, ops=tuple(ops))
