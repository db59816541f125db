"""Times the digits demo from an empty cache, component by component: `make bench-demo`."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from pipelines.metadata import MetadataStore

_RESULT = Path("build/bench/demo.json")
_VERSIONS = ("tfx", "tensorflow", "tf-keras", "apache-beam", "ml-metadata", "numpy")


@click.command()
@click.option("--repeats", default=3, show_default=True, help="How often; medians are reported.")
@click.option("--runner", default="local", show_default=True, help="Who executes the pipeline.")
def main(repeats: int, runner: str) -> None:
    """Times the digits demo from an empty cache, component by component."""
    runs = []
    for number in range(repeats):
        click.echo(f"run {number + 1} of {repeats}")
        runs.append(_run(runner))
    result = {
        "benchmark": "demo",
        "runner": runner,
        "repeats": repeats,
        "wall_s": _median([run["wall_s"] for run in runs]),
        "components_s": {
            name: _median([run["components_s"][name] for run in runs]) for name in runs[0]["components_s"]
        },
        "runs": runs,
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}},
    }
    _RESULT.parent.mkdir(parents=True, exist_ok=True)
    _RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name, seconds in result["components_s"].items():
        click.echo(f"{name:<20} {seconds:6.1f} s")
    click.echo(f"{'whole process':<20} {result['wall_s']:6.1f} s, imports included\n{_RESULT}")


def _run(runner: str) -> dict[str, Any]:
    """One run in a process of its own, with nothing cached."""
    with tempfile.TemporaryDirectory(prefix="tfx-qat-bench-") as root:
        started = time.monotonic()
        command = [sys.executable, "-m", "pipelines", "run", "digits", "--root", root, "--runner", runner]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_s = time.monotonic() - started
        executions = MetadataStore(str(Path(root) / "metadata.sqlite")).last_run("digits")
        return {"wall_s": round(wall_s, 2), "components_s": {e.component: e.seconds for e in executions}}


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


if __name__ == "__main__":
    main()
