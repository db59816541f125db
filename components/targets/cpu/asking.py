"""Asks TFLite's interpreter about a model in a process of its own, which a hostile file may crash, or hold for ever."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.quantization.process_group import environment_of_modules, process_group
from components.targets import Latency

_LOG_CHARACTERS = 500


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the interpreter says of a model.

    Attributes:
      tool: The interpreter.
      version: Its version.
      delegated: Indices of the ops of the main subgraph that XNNPACK runs.
      latency: Time of an inference, if that was asked for.
      figures: Further figures by name.
    """

    tool: str
    version: str
    delegated: frozenset[int]
    latency: Latency | None
    figures: dict[str, float]


def ask(tflite: bytes, kernels: str, threads: int, runs: int, limit_s: float) -> Answer:
    """Loads a model, and times inferences.

    Args:
      tflite: A TFLite flatbuffer.
      kernels: As for `measuring.timed`.
      threads: How many threads the interpreter may use.
      runs: How many inferences are timed; 0 for none.
      limit_s: Limit of time for all of it.

    Raises:
      ValueError: If the interpreter refuses the file, crashes, does not end within the limit, or cannot be started.
    """
    try:
        return _ask(tflite, kernels, threads, runs, limit_s)
    except OSError as error:
        raise ValueError(f"the interpreter's process cannot be started: {error}") from error


def _ask(tflite: bytes, kernels: str, threads: int, runs: int, limit_s: float) -> Answer:
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as place:
        model = Path(place) / "model.tflite"
        model.write_bytes(tflite)
        command = (sys.executable, "-W", "ignore", "-m", __name__, str(model), kernels, str(threads), str(runs))
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        try:
            with process_group(command, env=environment_of_modules(), **streams) as process:
                said, log = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"the interpreter did not end within {limit_s:g} s, with {threads} threads on {os.cpu_count()} CPUs"
            ) from error
        if process.returncode < 0:  # what it says before, TensorFlow says of every start
            raise ValueError(f"the interpreter crashed on this file: {signal.Signals(-process.returncode).name}")
        if process.returncode:
            raise ValueError(
                f"the process of the interpreter ended with {process.returncode}: {log.strip()[-_LOG_CHARACTERS:]}"
            )
    found: dict[str, Any] = json.loads(said)
    if "refused" in found:
        raise ValueError(found["refused"])
    latency, taken = found.pop("latency"), frozenset(found.pop("delegated"))
    return Answer(delegated=taken, latency=Latency(**latency) if latency else None, **found)


def _answer(arguments: Sequence[str]) -> dict[str, Any]:
    """What JSON can hold of an `Answer`, or why there is none."""
    from components.targets.cpu import measuring

    path, kernels, threads, runs = arguments
    tflite = Path(path).read_bytes()
    latency: Latency | None = None
    figures: dict[str, float] = {}
    try:
        taken = measuring.delegated(tflite)
        if int(runs):
            latency, figures = measuring.latency(tflite, kernels, int(threads), int(runs))  # type: ignore[arg-type]
    except ValueError as error:
        return {"refused": str(error)}
    return {
        "tool": measuring.TOOL,
        "version": measuring.VERSION,
        "delegated": sorted(taken),
        "latency": dataclasses.asdict(latency) if latency else None,
        "figures": figures,
    }


def _main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what TensorFlow prints is no answer
    with answers:
        json.dump(_answer(sys.argv[1:]), answers)


if __name__ == "__main__":
    _main()
