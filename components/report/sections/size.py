"""Bytes and time: of the models on disk, of the target's memory, of one inference."""

from components.report import charts
from components.report.facts import Cell, Node
from components.report.layout import Figure, Section, Table, row, table


def section(root: Node) -> Section:
    """Returns sizes as bars, memory on the target and latency."""
    figures = tuple(one for one in (_sizes(root), _latencies(root)) if one is not None)
    missing = []
    if len(figures) == 0 or figures[0].alt.startswith("Time"):
        missing.append("Sizes of the models are not recorded.")
    if not any(figure.alt.startswith("Time") for figure in figures):
        missing.append("The time of an inference was neither measured nor estimated.")
    return Section(
        id="size", title="Size and latency", missing=tuple(missing), figures=figures, tables=(_memory(root),)
    )


def headline(root: Node) -> tuple[str, Cell]:
    """Returns the size of the file that is pushed."""
    return "bytes of the pushed file", root["compiled_model"]["size_bytes"].cell(",d")


def _sizes(root: Node) -> Figure | None:
    found = [
        (name, root[document]["size_bytes"])
        for name, document in (
            ("float SavedModel's variables", "float_model"),
            ("integer file with metadata", "integer_model"),
            ("pushed file with metadata", "compiled_model"),
        )
        if root[document]["size_bytes"]
    ]
    if not found:
        return None
    drawn = [
        charts.Bar(label=name, value=(size.number or 0.0) / 1000, text=size.cell(",d").text) for name, size in found
    ]
    return Figure(
        svg=charts.bars(drawn, "kB (1,000 bytes); bytes at the right"),
        alt="Sizes in bytes: " + ", ".join(f"{one.label} {one.text}" for one in drawn) + ".",
        table=table("Sizes, bytes", ("what", "bytes"), [row(name, size.cell(",d")) for name, size in found]),
    )


def _latencies(root: Node) -> Figure | None:
    reported, facts = root["compile_report"]["latency"], root["measurements"]["facts"]
    found = []
    if reported["ms"]:
        kind, basis = reported["kind"].text, reported["basis"].text
        found.append((f"{root['compile_report']['target'].text}, {kind}", reported["ms"], basis))
    if facts["latency_ms"]:
        told = {name: facts[f"latency_{name}"].text for name in ("host", "kernels", "threads")}
        basis = f"{told['host']}, {told['kernels']}, {told['threads']} thread{'s' * (told['threads'] != '1')}"
        found.append(("the evaluator's machine, measured", facts["latency_ms"], basis))
    for receipt in root["receipts"]:
        if receipt["example_ms"].value:
            found.append((f"rung {receipt['rung'].text}", receipt["example_ms"], "one thread of the trainer's machine"))
    if not found:
        return None
    drawn = [charts.Bar(label=name, value=ms.number or 0.0, text=ms.cell(".3g").text) for name, ms, _ in found]
    return Figure(
        svg=charts.bars(drawn, "ms per inference"),
        alt="Time of one inference in ms: " + ", ".join(f"{one.label} {one.text}" for one in drawn) + ".",
        table=table(
            "Time of one inference, ms",
            ("what", "ms", "basis"),
            [row(name, ms.cell(".3g"), basis) for name, ms, basis in found],
        ),
    )


def _memory(root: Node) -> Table:
    memory, arena = root["compile_report"]["memory"], root["measurements"]["facts"]["arena_bytes"]
    smoke = next((one["got"] for one in root["smoke_test"]["reasons"] if one["gate"].value == "arena"), Node(None))
    names = (
        ("parameters kept on the target", memory["cached_bytes"]),
        ("parameters sent for each inference", memory["streamed_bytes"]),
        ("arena on the target", memory["arena_bytes"]),
        ("arena on this machine's CPU", arena if arena else smoke),
    )
    return table("Memory, bytes", ("what", "bytes"), [row(name, value.cell(",.0f")) for name, value in names])
