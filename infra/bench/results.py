"""What benchmarks leave behind: a file under build/bench, and tables in Markdown."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

DIRECTORY = Path("build/bench")
_VERSIONS = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy")


def write_result(benchmark: str, found: Mapping[str, Any]) -> Path:
    """Writes what was found, with machine and versions.

    Args:
      benchmark: The benchmark's name, which is the file's.
      found: What JSON can hold.

    Returns:
      The file's path.
    """
    result = {
        "benchmark": benchmark,
        **found,
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}},
    }
    path = DIRECTORY / f"{benchmark}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
