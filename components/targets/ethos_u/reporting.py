"""The report of a compilation: Vela's figures, held against the model and the compiled file."""

from components.quantization.conversion import flatbuffer
from components.targets import (
    CompiledModel,
    CompileReport,
    Latency,
    Mapping,
    Memory,
    OpMapping,
    analysis,
    with_figures,
)
from components.targets._compiled_file import compiled_parts, ops_on_target
from components.targets.ethos_u import statistics
from components.targets.ethos_u.driver import Outcome
from components.targets.ethos_u.edits import edit
from components.targets.ethos_u.log import CpuOperation, cpu_count, cpu_operations
from components.targets.ethos_u.options import CUSTOM_OP, VelaOptions
from components.targets.ethos_u.rules import NO_REASON, ON_NPU

NAME = "ethos_u"


def compiled_model(outcome: Outcome, tflite: bytes, options: VelaOptions) -> CompiledModel:
    """Returns the compiled file with its report.

    Args:
      outcome: The compilation.
      tflite: The model before.
      options: What Vela was asked for.
    """
    said = cpu_operations(outcome.run.output)
    mapping, problems = _mapping(tflite, outcome.tflite, said, options)
    summary = statistics.read_summary(outcome.run.files)
    layers = statistics.read_layers(outcome.run.files)
    kept = statistics.slowest(layers)
    if len(kept) < len(layers):
        problems += (f"Vela's table has {len(layers)} rows: the {len(kept)} of most cycles are here",)
    if not summary:
        problems += ("Vela wrote no summary",)
    counted = cpu_count(outcome.run.output)
    one_graph = len(flatbuffer.read_subgraphs(tflite)) == 1  # Vela counts the ops of all of them
    if one_graph and counted is not None and counted != mapping.on_cpu:
        problems += (f"Vela counts {counted} ops on the CPU, but the files show {mapping.on_cpu}",)
    figures = statistics.measurements(summary)
    report = CompileReport(
        target=NAME,
        compiled=True,
        tool=f"Vela {outcome.version or 'of unknown version'}",
        tool_version=outcome.version,
        ops=analysis(mapping).ops,
        log=outcome.run.output,
        subgraphs=compiled_parts(outcome.tflite, CUSTOM_OP),
        memory=Memory(arena_bytes=_arena_bytes(summary, figures)),
        latency=_latency(summary, figures, outcome.version),
        measurements=figures,
        layers=kept,
        attempts=outcome.attempts,
        problems=problems,
    )
    return CompiledModel(
        tflite=outcome.tflite,
        report=with_figures(report, mapping, tflite, lambda op, status: edit(op, status, options.family)),
        mapping=mapping,
    )


def _mapping(
    tflite: bytes, compiled: bytes, said: tuple[CpuOperation, ...], options: VelaOptions
) -> tuple[Mapping, tuple[str, ...]]:
    """Where each op runs, by the compiled file, else by Vela's words; with what contradicts."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    reasons = {operation.output: operation for operation in said}
    outputs = [graph.tensors[op.outputs[0]].name if op.outputs else "" for op in graph.ops]
    shown = ops_on_target(tflite, compiled, CUSTOM_OP)
    on_npu = shown if shown is not None else tuple(name not in reasons for name in outputs)
    ops = []
    for op, name, there in zip(graph.ops, outputs, on_npu, strict=True):
        told = reasons.get(name)
        status = ON_NPU if there else told.status if told and told.status else NO_REASON
        reason = told.constraint if told and not there else ""
        ops.append(OpMapping(index=op.index, op=op.name, on_target=there, status=status, reason=reason))
    mapping = Mapping(target=NAME, ops=tuple(ops))
    contradicted = [name for name, there in zip(outputs, on_npu, strict=True) if there and name in reasons]
    problems = tuple(
        f"Vela leaves {name} to the CPU, but the compiled file for {options.accelerator_config} does not have it"
        for name in contradicted
    )
    return mapping, problems


def _arena_bytes(summary: dict[str, str], figures: dict[str, float]) -> int | None:
    """Room for activations: what is used of their memory, where nothing else lies in it."""
    area = summary.get("feature_map_storage_area", "")
    used = figures.get(f"{area.lower()}_bytes")
    return None if used is None or area == summary.get("weights_storage_area") else round(used)


def _latency(summary: dict[str, str], figures: dict[str, float], version: str) -> Latency | None:
    seconds = figures.get("inference_seconds")
    if not seconds:
        return None
    return Latency(
        ms=1000.0 * seconds,
        kind="estimated",
        basis=f"by Vela {version}, of {figures['cycles']:.0f} cycles of the NPU alone:"
        f" {summary['accelerator_configuration']} at {figures['core_clock_hz'] / 1e6:g} MHz,"
        f" {summary['system_config']}, {summary['memory_mode']}; ops on the CPU are not in it",
    )
