"""Times lineage in stores of replayed runs, from the file on: `make bench-lineage`."""

import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from infra.bench.recorded_run import RECORDING, Replay, model_bytes, open_store
from infra.bench.results import markdown_table, write_result

_DATA = ("ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform")
_COMPILER = "EdgeTPUCompiler-edge-tpu"


@click.command()
@click.option("--runs", default=280, show_default=True, help="How many runs the small store has.")
@click.option("--times", "factor", default=10, show_default=True, help="How many times as many the large has; 1: none.")
@click.option("--repeats", default=5, show_default=True, help="How often each command; medians are reported.")
@click.option(
    "--stores",
    default="build/bench/lineage",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where stores are kept for the next time: the large one takes minutes.",
)
def main(runs: int, factor: int, repeats: int, stores: Path) -> None:
    """Times whole processes, imports included, in a store and in one of several times as many runs."""
    stores.mkdir(parents=True, exist_ok=True)
    found = []
    for count in dict.fromkeys((runs, factor * runs)):
        store = stores / f"{count}.sqlite"
        if not store.exists():
            started = time.monotonic()
            _make(store, count)
            click.echo(f"{store}: {count:,} runs, made in {time.monotonic() - started:.0f} s")
        with tempfile.TemporaryDirectory(prefix="tfx-qat-bench-") as directory:
            found.append(_measure(store, Path(directory), count, repeats))
    head = ("command", *(f"{one['runs']:,} runs, {one['artifacts']:,} artifacts" for one in found))
    rows = [
        (name, *(f"{one['wall_s'][name]:.2f} s, {one['cpu_s'][name]:.2f} s of CPU" for one in found))
        for name in found[0]["wall_s"]
    ]
    click.echo(markdown_table(head, rows))
    click.echo(write_result("lineage", {"repeats": repeats, "stores": found}))


def _measure(store: Path, directory: Path, count: int, repeats: int) -> dict[str, Any]:
    oldest, middle, newest = (_pushed_file(directory, number) for number in (0, count // 2, count - 1))
    tampered = directory / "tampered.tflite"
    tampered.write_bytes(b"x" + middle.read_bytes()[1:])
    commands = {
        "a pushed file of the oldest run": [str(oldest)],
        "of the middle one": [str(middle)],
        "of the newest one": [str(newest)],
        "a sha256": [hashlib.sha256(middle.read_bytes()).hexdigest()],
        "a tampered file": [str(tampered)],
        "diff": ["diff", str(oldest), str(newest)],
        "list": ["list"],
    }
    wall_s, cpu_s = {}, {}
    for name, arguments in commands.items():
        expected = 2 if name == "a tampered file" else 0
        times = [_times(store, arguments, expected) for _ in range(repeats)]
        wall_s[name], cpu_s[name] = (round(statistics.median(column), 2) for column in zip(*times, strict=True))
    artifacts = len(open_store(store).get_artifacts())
    size = store.stat().st_size
    return {"runs": count, "artifacts": artifacts, "store_bytes": size, "wall_s": wall_s, "cpu_s": cpu_s}


def _make(store: Path, count: int) -> None:
    """Writes the runs, of which one in two has its data from the cache."""
    recorded = json.loads(RECORDING.read_text())
    # A store on a disk waits for the disk at every transaction; how it was made does not matter here.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tfx-qat-bench-", dir=place) as scratch:
        made = Path(scratch) / "metadata.sqlite"
        replay, before = Replay(open_store(made), recorded, "/replayed"), None
        for number in range(count):
            cached = _DATA if before is not None and number % 2 else ()
            before = replay.run(_run_id(number), before=before, cached=cached)
        partial = store.with_suffix(".partial")
        shutil.copy(made, partial)
        partial.rename(store)


def _run_id(number: int) -> str:
    return f"run-{number:06}"


def _pushed_file(directory: Path, number: int) -> Path:
    """Writes what a run pushed for the Edge TPU, as if it was copied from a device."""
    (facts,) = [
        one["customProperties"]
        for one in json.loads(RECORDING.read_text())["artifacts"]
        if one["type"] == "Model" and f"/{_COMPILER}/" in one["uri"]
    ]
    path = directory / f"from_a_device_{number}.bin"
    hashes = (facts[name]["stringValue"] for name in ("sha256", "content_sha256"))
    path.write_bytes(model_bytes(_run_id(number), *hashes))
    return path


def _times(store: Path, arguments: list[str], expected: int) -> tuple[float, float]:
    """Wall and processor seconds of a command; the latter say more where other things run."""
    command = [sys.executable, "-m", "pipelines", "lineage", *arguments, "--metadata", str(store)]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != expected:
        raise RuntimeError(f"{' '.join(command)} exited with {result.returncode}: {result.stderr[-500:]}")
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
