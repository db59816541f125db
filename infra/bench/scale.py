"""How the digits pipeline's time, memory and bytes grow with its examples: `make bench-scale`.

Each run is a process of its own, from an empty cache, on images of the digits with a little noise, each another one.
Memory is what the process had before the first component, and what a component added to what it found, at its peak,
which Linux counts anew before each: what others left does not count. What it reused of that does not, either.
`python -m pipelines cost` reads what this writes.
"""

import dataclasses
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from infra.bench import results
from infra.bench.process_memory import peak_bytes, reset_peak, resident_bytes

# Smaller ones would mislead: what is compared of calibration stops at ten thousand examples.
_SIZES = (10_000, 30_000, 100_000)
_FLOAT_EPOCHS, _QAT_EPOCHS = 3, 1


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.IntRange(min=100), help="Examples; default: 1e4, 3e4, 1e5.")
@click.option("--repeats", default=1, show_default=True, help="Runs of each size; the fastest counts.")
def main(sizes: tuple[int, ...], repeats: int) -> None:
    """Measures runs of several sizes, into build/bench/scale.json."""
    about = {
        "pipeline": "the digits, 8x8 pixels with a label, 43,242 parameters",
        "epochs": f"{_FLOAT_EPOCHS} of float training and {_QAT_EPOCHS} of fine-tuning",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, in memory, one process",
        "load average before": f"{os.getloadavg()[0]:.1f}",
    }
    runs: list[dict[str, Any]] = []
    for size in sizes or _SIZES:
        runs.append(min((_in_a_process(size) for _ in range(repeats)), key=lambda run: run["wall_s"]))
        path = results.write_result("scale", {"about": about, "runs": runs})
        click.echo(f"{size:,} examples: {runs[-1]['wall_s']:.0f} s, {path}")


def _in_a_process(size: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "infra.bench.scale", "--one", str(size)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise click.ClickException(f"a run of {size:,} examples failed:\n{ran.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _write_examples(directory: Path, count: int) -> None:
    """Writes so many images, no two alike."""
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(9)
    with tf.io.TFRecordWriter(str(directory / "digits.tfrecord")) as writer:
        for index in range(count):
            image = images[index % len(images)] + random.normal(0, 0.1, 64)
            example = tf.train.Example()
            example.features.feature["image"].float_list.value.extend(np.clip(image, 0, 16))
            example.features.feature["label"].int64_list.value.append(labels[index % len(labels)])
            writer.write(example.SerializeToString())


class _Meter(logging.Handler):
    """Measures what runs between the lines that TFX logs before and after a component."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: dict[str, dict[str, float]] = {}
        self._started_s = 0.0
        self._started_bytes = self._first_bytes = 0

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().split()
        if words[:1] != ["Component"] or words[2:] not in (["is", "running."], ["is", "finished."]):
            return
        if words[3] == "running.":
            reset_peak()
            self._started_bytes = resident_bytes()
            self._first_bytes = self._first_bytes or self._started_bytes
            self._started_s = time.monotonic()
        else:
            seconds = time.monotonic() - self._started_s
            peak = self._first_bytes + peak_bytes() - self._started_bytes
            self.found[words[1]] = {"seconds": seconds, "peak_bytes": peak}


def _one(count: int) -> dict[str, Any]:
    """Runs the pipeline once in this process."""
    from pipelines.configs import load_config
    from pipelines.metadata import MetadataStore
    from pipelines.pipeline import create_pipeline
    from pipelines.progress import watch
    from pipelines.runners import load_runner

    with tempfile.TemporaryDirectory(prefix="tfx-qat-bench-") as directory:
        digits = load_config("digits")
        training = dataclasses.replace(
            digits.training, float_epochs=_FLOAT_EPOCHS, qat_epochs=_QAT_EPOCHS, early_stopping_patience=0
        )
        places = {"root": f"{directory}/run", "examples_dir": f"{directory}/examples"}
        config = dataclasses.replace(digits, **places, training=training)
        Path(config.examples_dir).mkdir()
        _write_examples(Path(config.examples_dir), count)
        Path(config.root).mkdir()
        meter = _Meter()
        watch(meter)
        started = time.monotonic()
        load_runner("local").run(create_pipeline(config))
        wall_s = time.monotonic() - started
        for execution in MetadataStore(config.metadata_url).last_run(config.name):
            uris = {record.uri for records in execution.outputs.values() for record in records}
            files = {file for uri in uris for file in Path(uri).rglob("*") if file.is_file()}
            meter.found[execution.component]["written_bytes"] = sum(file.stat().st_size for file in files)
    return {"examples": count, "wall_s": wall_s, "components": meter.found}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(_one(int(sys.argv[2]))))
    else:
        main()
