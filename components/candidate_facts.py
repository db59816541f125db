"""What is known of an integer model as a file and on its target, for the gates that ask."""

import logging
import platform
import statistics
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np

from components.evaluation import smoke
from components.evaluation.gate import FIRST_CPU_OP, LATENCY
from components.quantization.contract import TFLITE_FILE
from components.quantization.conversion import flatbuffer
from components.quantization.kernels import KernelInterpreter
from components.quantization.macs import macs
from components.targets import load_target
from components.targets.cpu.measuring import cpu_name

_RUNS, _WARM_UP_RUNS = 50, 5
_THREADS = 1
_LOGGER = logging.getLogger(__name__)


def candidate_facts(serving: Path, target: str, names: Collection[str]) -> dict[str, float | str]:
    """Returns facts by name, as `Measurements.facts` has them; what takes time only if it is asked for.

    Args:
      serving: Directory of the model.
      target: Name of the target, whose rules say where its ops run.
      names: Of what gates ask for.
    """
    tflite = (serving / TFLITE_FILE).read_bytes()
    facts: dict[str, float | str] = {"model_bytes": float(len(tflite)), **_on_target(tflite, target)}
    if "arena_bytes" in names:
        facts |= _arena(serving)
    if LATENCY in names:
        facts |= _latency(tflite)
    return facts


def _arena(serving: Path) -> dict[str, float | str]:
    """The arena; nothing, so that its gate refuses, of a model that does not run with the kernels that are measured."""
    try:
        return {"arena_bytes": float(smoke.arena_bytes(serving))}
    except ValueError as error:
        _LOGGER.warning("%s", error)
        return {}


def _on_target(tflite: bytes, target: str) -> dict[str, float | str]:
    """Share of the multiplications on the target, and the first op that is not, as the target's rules predict it."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    mapped = load_target(target).inspect(tflite).ops
    counts = [macs(op, graph) for op in graph.ops]
    there = sum(count for count, op in zip(counts, mapped, strict=True) if op.on_target)
    first = next((op.op for op in mapped if not op.on_target), "")
    share = there / sum(counts) if sum(counts) else float(not first)
    return {"macs_on_target": share, FIRST_CPU_OP: first}


def _latency(tflite: bytes) -> dict[str, float | str]:
    """Median time of one inference on this machine, of random inputs."""
    interpreter = KernelInterpreter(tflite)
    random = np.random.default_rng(1)
    inputs = {
        name: random.integers(0, 2, tensor.shape).astype(np.float32) for name, tensor in interpreter.inputs.items()
    }
    seconds = []
    for _ in range(_WARM_UP_RUNS + _RUNS):
        started = time.perf_counter()
        interpreter.run(inputs)
        seconds.append(time.perf_counter() - started)
    return {
        LATENCY: 1000 * statistics.median(seconds[_WARM_UP_RUNS:]),
        "latency_host": f"{platform.node()} ({cpu_name()})",
        "latency_kernels": interpreter.description,
        "latency_threads": str(_THREADS),
    }
