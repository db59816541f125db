"""What TFLite's interpreter itself says of a model on this machine: which ops it delegates, and how long it takes."""

import dataclasses
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.quantization.kernels import Kernels, delegated_op_indices, described, load
from components.targets import Latency

_WARM_UP_RUNS = 5
TOOL = f"TFLite interpreter of TensorFlow {tf.__version__}"
VERSION: str = tf.__version__


def delegated(tflite: bytes) -> frozenset[int]:
    """Returns the ops of the main subgraph that XNNPACK runs; raises ValueError if the interpreter refuses the file."""
    return delegated_op_indices(load(tflite))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Inferences that were timed.

    Attributes:
      times_ms: How long each took.
      host: The machine and its CPU.
      kernels: The kernels, in words.
    """

    times_ms: tuple[float, ...]
    host: str
    kernels: str


def timed(tflite: bytes, kernels: Kernels, threads: int, runs: int) -> Timing:
    """Times inferences of random inputs.

    Args:
      tflite: A TFLite flatbuffer of a fixed size.
      kernels: As for `kernels.load`.
      threads: How many threads the interpreter may use.
      runs: How many inferences are measured, after a few that are not.

    Raises:
      ValueError: If the interpreter refuses the file, or ends an inference with an error.
    """
    interpreter = load(tflite, kernels, threads=threads)
    random = np.random.default_rng(1)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], _values(detail, random))
    times_ms = []
    for _ in range(_WARM_UP_RUNS + runs):
        started = time.perf_counter()
        try:
            interpreter.invoke()
        except RuntimeError as error:
            raise ValueError(f"the interpreter cannot run the model on random inputs: {error}") from error
        times_ms.append(1000 * (time.perf_counter() - started))
    return Timing(
        times_ms=tuple(times_ms[_WARM_UP_RUNS:]),
        host=f"{platform.node()} ({_cpu_name()})",
        kernels=described(kernels, interpreter),
    )


def latency(tflite: bytes, kernels: Kernels, threads: int, runs: int) -> tuple[Latency, dict[str, float]]:
    """Returns the median of inferences with its basis, and further figures by name; arguments and errors as `timed`."""
    timing = timed(tflite, kernels, threads, runs)
    low, high = np.percentile(timing.times_ms, [10, 90])
    basis = (
        f"median of {runs} runs on {timing.host}, {threads} thread{'s' * (threads > 1)}, {timing.kernels}, 10th to 90th"
        f" percentile {low:.3f} to {high:.3f} ms"
    )
    measured = Latency(ms=statistics.median(timing.times_ms), kind="measured", basis=basis)
    return measured, {
        "latency_p10_ms": float(low),
        "latency_p90_ms": float(high),
        "latency_runs": float(runs),
        "latency_threads": float(threads),
    }


def _cpu_name() -> str:
    """The name of the CPU, as Linux gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _values(detail: dict[str, Any], random: np.random.Generator) -> Any:
    dtype = np.dtype(detail["dtype"])
    if np.issubdtype(dtype, np.floating):
        return random.random(detail["shape"]).astype(dtype)
    # Small and not negative: they may be indices.
    return random.integers(0, 2, detail["shape"]).astype(dtype)
