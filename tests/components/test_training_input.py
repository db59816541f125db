"""What training reads: shared out to workers, and streamed. Run as a script, this is one of the processes."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components import example_files
from components.quantization.qat.distribution import make_strategy
from components.quantization.qat.splits import TrainingPasses
from infra.bench.process_memory import peak_bytes, reset_peak

pytestmark = pytest.mark.extended
_REPOSITORY = Path(__file__).parents[2]
_VALUES = 1024  # of an example: 4 kB
_SORTED_BYTES = 4_000_000


def _write(path: Path, numbers: range, values: int) -> None:
    random = np.random.default_rng(1)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in numbers:
            example = tf.train.Example()
            example.features.feature["number"].int64_list.value.append(number)
            example.features.feature["x"].float_list.value.extend(random.random(values, np.float32))
            writer.write(example.SerializeToString())


def _batches(files: list[str], values: int, seed: int | None) -> tf.data.Dataset:
    """As a task's input_fn reads them."""
    spec = {"number": tf.io.FixedLenFeature([], tf.int64), "x": tf.io.FixedLenFeature([values], tf.float32)}
    records = tf.data.TFRecordDataset(files)
    if seed is not None:
        records = records.shuffle(100, seed=seed)

    def parse(batch: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        features = tf.io.parse_example(batch, spec)
        return features, features.pop("number")

    return records.batch(8).map(parse)


def _share(directory: Path) -> list[list[int]]:
    """The examples that this worker gets, in two passes over three files."""
    strategy = make_strategy("multi_worker_mirrored", 8)
    tf.random.set_seed(1)
    files = sorted(map(str, directory.glob("*.tfrecord")))
    passes = TrainingPasses(lambda seed: _batches(files, 2, seed), (5,), strategy, number=0, skip=0)
    found = []
    for _ in range(2):
        labels = [strategy.experimental_local_results(label)[0] for _, label in passes.iterator]
        found.append([int(number) for label in labels for number in label])
        passes.next_pass()
    return found


def _peak_of_a_pass(directory: Path) -> int:
    """Memory that staging a split and a pass over it take at most."""
    example_files._SORTED_BYTES = _SORTED_BYTES
    example_files.read_split = lambda *_: tf.data.TFRecordDataset(
        str(directory / "examples.tfrecord")
    ).as_numpy_iterator()
    list(_batches([str(directory / "warm.tfrecord")], _VALUES, 1))  # what TensorFlow takes for itself
    reset_peak()
    staged = example_files.stage_split([], "train", 1, directory)
    strategy = make_strategy("none", 8)
    tf.random.set_seed(1)
    passes = TrainingPasses(lambda seed: _batches([str(staged)], _VALUES, seed), (5,), strategy, number=0, skip=0)
    seen = sum(len(label) for _, label in passes.iterator)
    assert seen == int((directory / "count").read_text())
    return peak_bytes()


def _start(what: str, directory: Path, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", __file__, what, str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _answers(*processes: "subprocess.Popen[str]") -> list[Any]:
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:  # a worker may wait for one that failed
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_each_example_of_a_pass_is_seen_by_exactly_one_of_two_workers(tmp_path: Path) -> None:
    for shard, numbers in enumerate((range(20), range(20, 27), range(27, 44))):
        _write(tmp_path / f"{shard}.tfrecord", numbers, 2)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("localhost", 0))
        workers = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    processes = [
        _start(
            "share",
            tmp_path,
            TF_CONFIG=json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}),
        )
        for index in range(2)
    ]
    first, second = _answers(*processes)
    for number in range(2):
        assert sorted(first[number] + second[number]) == list(range(44))
        assert len(first[number]) == len(second[number]) == 22  # five batches of 8, and one of 4
    assert first[0] != first[1]


def test_memory_of_staging_and_of_a_pass_does_not_grow_with_the_examples(tmp_path: Path) -> None:
    peaks = {}
    for count in (4_000, 24_000):
        directory = tmp_path / str(count)
        directory.mkdir()
        (directory / "count").write_text(str(count))
        _write(directory / "examples.tfrecord", range(count), _VALUES)
        _write(directory / "warm.tfrecord", range(200), _VALUES)
        (peaks[count],) = _answers(_start("peak", directory))
    more_bytes = 20_000 * _VALUES * 4
    assert peaks[24_000] - peaks[4_000] < more_bytes / 2


if __name__ == "__main__":
    print(json.dumps({"share": _share, "peak": _peak_of_a_pass}[sys.argv[1]](Path(sys.argv[2]))))
