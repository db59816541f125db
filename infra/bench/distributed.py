"""The digits pipeline with its Beam steps in one process and in others: `make bench-distributed`.

In memory; by Beam's own runner in 1 and 2 worker processes; and by a job server and a worker pool, which are processes
of their own, with 1 and 2 workers. Each run starts from an empty cache, and must give what the first one gave: the same
file but for the entry that names the run, paired statistics exactly, metrics to 1e-9, calibration errors to 1e-6.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from components.evaluation.measurements import MEASUREMENTS_FILE
from components.paired_evaluation import PAIRED_FILE
from components.quantization.contract.file_metadata import without_metadata
from infra.beam_cluster import beam_cluster
from infra.bench import results
from infra.bench.process_memory import peak_memory_below
from pipelines.metadata import MetadataStore

_BEAM_COMPONENTS = ("ImportExampleGen", "StatisticsGen", "Transform", "QuantizedEvaluator")
# What it is called, the Beam runner with its settings, and how many workers a cluster has, 0 for none.
_HOWS = {
    "memory": ("in memory", ("direct",), 0),
    "processes_1": ("worker processes: 1", ("direct", "mode=multi_processing", "workers=1"), 0),
    "processes_2": ("worker processes: 2", ("direct", "mode=multi_processing", "workers=2"), 0),
    "cluster_1": ("job server, workers: 1", ("portable",), 1),
    "cluster_2": ("job server, workers: 2", ("portable",), 2),
}
# Made of probabilities, whose last bits depend in the float model on how many examples a batch has.
_CALIBRATION_ERRORS = ("calibration_error", "other_calibration_error")


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(_HOWS)), help="One of them; default: all.")
def main(only: tuple[str, ...]) -> None:
    """Times the digits pipeline on several Beam workers, into build/bench/distributed.json."""
    runs: dict[str, dict[str, Any]] = {}
    first: dict[str, Any] = {}
    load = os.getloadavg()[0]
    for how in only or _HOWS:
        runs[how], made = _run(how)
        if first:
            runs[how]["differences"] = _differences(first, made)
        first = first or made
        path = results.write_result("distributed", {"runs": runs, "load_average_before": load})
    click.echo(f"{_table(runs)}\n{path}")
    if any(run.get("differences") for run in runs.values()):
        sys.exit("results differ")


def _run(how: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one run took, and what it made."""
    _, (beam, *options), workers = _HOWS[how]
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tfx-qat-bench-")))
        if workers:
            options += stack.enter_context(beam_cluster(workers, root)).options
        given = [word for option in options for word in ("--beam-option", option)]
        command = [sys.executable, "-m", "pipelines", "run", "digits", "--root", str(root), "--beam", beam, *given]
        peak = stack.enter_context(peak_memory_below(os.getpid()))
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_s = time.monotonic() - started
        executions = {one.component: one for one in MetadataStore(str(root / "metadata.sqlite")).last_run("digits")}
        evaluation = Path(executions["QuantizedEvaluator"].outputs["evaluation"][0].uri)
        (pushed,) = (root / "pushed").glob("*/tflite")
        made = {
            "model": without_metadata(pushed.read_bytes()),
            "paired": json.loads((evaluation / PAIRED_FILE).read_text()),
            "measurements": json.loads((evaluation / MEASUREMENTS_FILE).read_text()),
        }
        return {
            "wall_s": round(wall_s, 1),
            "components_s": {name: round(one.seconds, 2) for name, one in executions.items()},
            "largest_process_mb": round(peak.largest_bytes / 1e6),
            "all_processes_mb": round(peak.together_bytes / 1e6),
        }, made


def _differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names what is not the same."""
    found = [] if first["model"] == other["model"] else ["the model"]
    pairs = [json.loads(json.dumps(of["paired"])) for of in (first, other)]
    errors = [[one.pop(name) for one in of["paired"] for name in _CALIBRATION_ERRORS] for of in pairs]
    found += [] if pairs[0] == pairs[1] else ["paired statistics"]
    found += [
        f"a calibration error {one!r} and {another!r}"
        for one, another in zip(*errors, strict=True)
        if not math.isclose(one, another, abs_tol=1e-6)
    ]
    metrics = [
        {f"{one['model']} {one['slice']} {name}": value for one in cells for name, value in one["metrics"].items()}
        for cells in (of["measurements"]["metrics"] for of in (first, other))
    ]
    for name in sorted(metrics[0].keys() | metrics[1].keys()):
        values = [of.get(name, math.nan) for of in metrics]
        if not math.isclose(*values, rel_tol=1e-9, abs_tol=1e-9):
            found.append(f"{name} {values[0]!r} and {values[1]!r}")
    return found


def _table(runs: dict[str, dict[str, Any]]) -> str:
    rows = [
        (
            _HOWS[how][0],
            *(f"{run['components_s'][name]:.1f}" for name in _BEAM_COMPONENTS),
            f"{run['wall_s']:.0f}",
            f"{run['largest_process_mb']:,}",
            f"{run['all_processes_mb']:,}",
            ", ".join(run.get("differences", [])) or "as in the first" if "differences" in run else "",
        )
        for how, run in runs.items()
    ]
    return results.markdown_table(
        ("Beam", *(f"{name} s" for name in _BEAM_COMPONENTS), "run s", "largest MB", "together MB", "results"), rows
    )


if __name__ == "__main__":
    main()
