"""Compilers for tests: the double that replays recordings, or the real one that a variable names."""

import collections
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

REAL = "TFX_QAT_EDGETPU_COMPILER"
"""Name of the variable: a path of the real edgetpu_compiler, for the tests that make sense with it."""
VERSION = "16.0.384591198"
_DOUBLE = Path(__file__).parent / "edgetpu_compiler_double.py"


class Double:
    """A double of the compiler in a folder of its own."""

    def __init__(self, directory: Path, **script: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "edgetpu_compiler"
        self._calls = directory / "calls.jsonl"
        self._calls.touch()
        contents = {"version": VERSION, "calls": str(self._calls), **script}
        (directory / "script.json").write_text(json.dumps(contents))
        command = shlex.join([sys.executable, "-S", "-E", str(_DOUBLE), str(directory / "script.json")])
        self.path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        self.path.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of each call, without those that only ask for the version."""
        return [json.loads(line) for line in self._calls.read_text().splitlines()]


def replaying(directory: Path, steps: Sequence[dict[str, Any]]) -> Double:
    """Returns a double that does one step at each call."""
    return Double(directory, steps=list(steps))


def knowing(directory: Path, shared: Path, memory_bytes: int = 2**23) -> Double:
    """Returns a double that knows the whole models of the reference data."""
    models = shared / "edgetpu" / "models"
    pairs = {
        pair["source_sha256"]: pair for pair in json.loads((shared / "edgetpu" / "oracle.json").read_text())["pairs"]
    }
    known = {}
    for compiled in sorted(models.glob("*_edgetpu.tflite")):
        source = compiled.with_name(compiled.name.replace("_edgetpu", ""))
        pair = pairs[sha256(source.read_bytes())]
        parameter_bytes = sum(
            part["cached_parameter_bytes"] + part["off_chip_streamed_bytes"] for part in pair["edgetpu"]
        )
        known[pair["source_sha256"]] = {
            "compiled": str(compiled),
            "rows": _rows(pair["ops"]),
            "parameter_bytes": parameter_bytes,
        }
    return Double(directory, known=known, memory_bytes=memory_bytes)


def sha256(content: bytes) -> str:
    """Returns the digest of a file's content."""
    return hashlib.sha256(content).hexdigest()


def real_compiler() -> Path | None:
    """Returns the real compiler, None if no variable names one."""
    path = os.environ.get(REAL)
    if path and not Path(path).is_file():
        pytest.fail(f"{REAL} is {path}, which is no file")
    return Path(path) if path else None


def _rows(ops: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    counts = collections.Counter((op["op"] if op["op"].isupper() else "CUSTOM", _status(op)) for op in ops)
    return [(op, count, status) for (op, status), count in counts.items()]


def _status(op: dict[str, Any]) -> str:
    """The status, which is known only where there is a log of the same file."""
    if op["where"] == "tpu":
        return "Mapped to Edge TPU"
    return op.get("status") or "Operation is working on an unsupported data type"
