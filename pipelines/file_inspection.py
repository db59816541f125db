"""Shows what a .tflite file is, from anywhere: inputs and outputs, ops, and what its audit finds."""

import collections
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipelines.progress import silent

_IDENTIFIER = b"TFL3"


def is_tflite(source: str) -> bool:
    """Whether a source is, or claims to be, a .tflite file."""
    path = Path(source)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix == ".tflite" or file.read(8)[4:] == _IDENTIFIER


def inspect_file(source: str, target: str, as_json: bool, console: Console) -> int:
    """Shows a file and its audit, or its audit alone as JSON.

    Args:
      source: Path of the file.
      target: Name of the target whose rules are checked, too.
      as_json: Whether only the audit is written, as JSON.
      console: Where to.

    Returns:
      The exit status: 0 if it is ready for the target, else 1.

    Raises:
      ValueError: If it is no TFLite file, or a broken one.
    """
    content = Path(source).read_bytes()
    with silent():
        from components.quantization.conversion import flatbuffer
        from components.quantization.conversion.audit import audit
        from components.quantization.conversion.deployed_audit import float_edges, with_float_edges

        found = audit(content, target)
        graph = flatbuffer.read_subgraphs(content)[0]
        floats = float_edges(graph)
        inside = with_float_edges(found, graph, floats)
    if as_json:
        sys.stdout.write(found.to_json())
        return int(not found.ready)
    _print(console, f"{source}: {len(content):,} bytes, {found.ops} ops, target {target}", "bold")
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in (graph.tensors[index] for index in indices):
            grid = f", scale {tensor.scale[0]:g}, zero point {tensor.zero_point[0]}" if tensor.scale else ""
            _print(console, f"{kind} {tensor.name}: {tensor.dtype.lower()} {list(tensor.shape)}{grid}")
    ops = collections.Counter(op.name for op in graph.ops)
    _print(console, ", ".join(f"{count} {op}" for op, count in sorted(ops.items())))
    _print(console, str(found), "" if found.ready else "red")
    if inside.integer_only and not found.integer_only:
        _print(console, f"but for {', '.join(floats)}, floats outside of one QUANTIZE or DEQUANTIZE: integer-only")
    for note in found.notes:
        _print(console, f"note: {note.op} {note.tensor}: {note.reason}", "yellow")
    return int(not found.ready)


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)
