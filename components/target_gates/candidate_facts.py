"""What is known of an integer model as a file and on its target, for the gates that ask."""

import dataclasses
import logging
import statistics
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from components.evaluation import smoke
from components.evaluation.gate import BASES, LATENCY, MACS_ON_TARGET, MODEL_BYTES, TARGET_BASIS
from components.quantization.contract import TFLITE_FILE
from components.target_gates.target_facts import target_facts
from components.targets import load_target
from components.targets.cpu import measuring

_RUNS = 50
_THREADS = 1
_LOGGER = logging.getLogger(__name__)


def candidate_facts(
    serving: Path,
    target: str,
    names: Collection[str],
    report: Mapping[str, Any] | None = None,
    options: str = "",
    latency_runs: int = 0,
) -> dict[str, float | str]:
    """Returns facts by name, as `Measurements.facts` has them; what takes time only if it is asked for.

    Args:
      serving: Directory of the model.
      target: Name of the target.
      names: Of what gates ask for.
      report: What TargetCompiler reported of the model, as JSON; without one, and where it does not say which ops run
        where, the target's rules do.
      options: JSON of the options of the target's compiler, for those rules; "" for the defaults.
      latency_runs: How many inferences are timed; 0 for none unless it is asked for, and then 50.
    """
    tflite = (serving / TFLITE_FILE).read_bytes()
    facts: dict[str, float | str] = {MODEL_BYTES: float(len(tflite)), **_on_target(tflite, target, report, options)}
    if "arena_bytes" in names:
        facts |= _arena(serving)
    if latency_runs or LATENCY in names:
        facts |= _latency(tflite, latency_runs or _RUNS)
    return facts


def _arena(serving: Path) -> dict[str, float | str]:
    """The arena; nothing, so that its gate refuses, of a model that does not run with the kernels that are measured."""
    try:
        return {"arena_bytes": float(smoke.arena_bytes(serving))}
    except ValueError as error:
        _LOGGER.warning("%s", error)
        return {}


def _on_target(tflite: bytes, target: str, report: Mapping[str, Any] | None, options: str) -> dict[str, float | str]:
    """What a report says of the model on its target, and the rules of what a compiler's report does not say."""
    reported = target_facts(report) if report is not None else {}
    if report is not None and (not report["compiled"] or reported.keys() >= BASES.keys()):
        return reported
    facts = target_facts(dataclasses.asdict(load_target(target).analyze(tflite, options)[1]))
    if report is None or MACS_ON_TARGET in reported:
        return {**facts, **reported}
    said = f"{facts[TARGET_BASIS]}, since the report of {report['tool']} does not say which ops"
    return {**facts, **reported, TARGET_BASIS: said}


def _latency(tflite: bytes, runs: int) -> dict[str, float | str]:
    """Median time of one inference on this machine, of random inputs."""
    timing = measuring.timed(tflite, "default", _THREADS, runs)
    return {
        LATENCY: statistics.median(timing.times_ms),
        "latency_host": timing.host,
        "latency_kernels": timing.kernels,
        "latency_threads": str(_THREADS),
    }
