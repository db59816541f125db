"""Times lineage in stores of replayed runs, from the file on: `make bench-lineage`."""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from infra.bench.recorded_run import RECORDING, Replay, Replayed, model_bytes, open_store
from infra.bench.results import markdown_table, write_result

_DATA = ("ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform")
_COMPILER = "EdgeTPUCompiler-edge-tpu"


@click.command()
@click.option(
    "--runs", default=250, show_default=True, help="How many runs the small store has; the large has 10 times."
)
@click.option("--repeats", default=5, show_default=True, help="How often each command; medians are reported.")
def main(runs: int, repeats: int) -> None:
    """Times whole processes, imports included, in a store and in one of ten times as many runs."""
    found = []
    for count in (runs, 10 * runs):
        with tempfile.TemporaryDirectory(prefix="tfx-qat-bench-") as directory:
            found.append(_measure(Path(directory), count, repeats))
    head = ("command", *(f"{one['runs']:,} runs, {one['artifacts']:,} artifacts" for one in found))
    rows = [(name, *(f"{one['seconds'][name]:.2f} s" for one in found)) for name in found[0]["seconds"]]
    click.echo(markdown_table(head, rows))
    click.echo(write_result("lineage", {"repeats": repeats, "stores": found}))


def _measure(directory: Path, count: int, repeats: int) -> dict[str, Any]:
    started = time.monotonic()
    store = directory / "metadata.sqlite"
    files = list(_make(store, directory, count))
    click.echo(f"{count:,} runs, {store.stat().st_size / 1e6:.0f} MB, made in {time.monotonic() - started:.0f} s")
    oldest, middle, newest = files
    sha256 = subprocess.run(["sha256sum", str(middle)], check=True, capture_output=True, text=True).stdout[:12]
    tampered = directory / "tampered.tflite"
    tampered.write_bytes(b"x" + middle.read_bytes()[1:])
    commands = {
        "a pushed file of the oldest run": [str(oldest)],
        "of the middle one": [str(middle)],
        "of the newest": [str(newest)],
        "sha256": [sha256],
        "tampered file": [str(tampered)],
        "diff": ["diff", str(oldest), str(newest)],
        "list": ["list"],
    }
    artifacts = len(open_store(store).get_artifacts())
    seconds = {}
    for name, arguments in commands.items():
        expected = 2 if name == "tampered file" else 0
        seconds[name] = statistics.median(_seconds(store, arguments, expected) for _ in range(repeats))
    return {
        "runs": count,
        "artifacts": artifacts,
        "store_bytes": store.stat().st_size,
        "seconds": seconds,
        "peak_kib_of_children": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }


def _make(store: Path, directory: Path, count: int) -> Iterator[Path]:
    """Writes the runs, of which one in two has its data from the cache; gives three pushed files, copied elsewhere."""
    recorded = json.loads(RECORDING.read_text())
    # A store on a disk waits for the disk at every transaction; how it was made does not matter here.
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else directory
    with tempfile.TemporaryDirectory(prefix="tfx-qat-bench-", dir=place) as scratch:
        made = Path(scratch) / "metadata.sqlite"
        replay, before = Replay(open_store(made), recorded, "/replayed"), None
        kept: list[Replayed] = []
        for number in range(count):
            cached = _DATA if before is not None and number % 2 else ()
            before = replay.run(f"run-{number:06}", before=before, cached=cached)
            if number in (0, count // 2, count - 1):
                kept.append(before)
        shutil.copy(made, store)
    for number, run in enumerate(kept):
        path = directory / f"from_a_device_{number}.bin"
        path.write_bytes(_file(recorded, run))
        yield path


def _file(recorded: dict[str, Any], run: Replayed) -> bytes:
    (facts,) = [
        one["customProperties"]
        for one in recorded["artifacts"]
        if one["type"] == "Model" and f"/{_COMPILER}/" in one["uri"]
    ]
    return model_bytes(run.run_id, facts["sha256"]["stringValue"], facts["content_sha256"]["stringValue"])


def _seconds(store: Path, arguments: list[str], expected: int) -> float:
    command = [sys.executable, "-m", "pipelines", "lineage", *arguments, "--metadata", str(store)]
    started = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = time.monotonic() - started
    if result.returncode != expected:
        raise RuntimeError(f"{' '.join(command)} exited with {result.returncode}: {result.stderr[-500:]}")
    return taken


if __name__ == "__main__":
    main()
