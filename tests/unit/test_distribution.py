"""Training on several devices and in several processes. Run as a script, this is one of these processes."""

import contextlib
import functools
import json
import logging
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.qat.checkpoints import TrainingState
from components.quantization.qat.distribution import (
    is_chief,
    is_chief_task,
    make_strategy,
    wait_for_all,
    worker_dir,
)
from components.quantization.qat.freezing import quantizers
from components.quantization.qat.ladder import LadderOptions
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.preflight import PlannedConversion
from components.quantization.qat.progress import Progress
from components.quantization.qat.splits import summarize_split, without_small_batches
from components.quantization.qat.training import QuantizationAwareTraining, TrainedModels
from components.quantization.schemes import load_scheme

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = 44


class _Killed(BaseException):
    pass


def _dataset(seed: int | None) -> tf.data.Dataset:
    values = np.random.default_rng(3).random((EXAMPLES, 6), np.float32)
    labels = np.argmax(values[:, :3], axis=1)
    rows = tf.data.Dataset.from_tensor_slices(({"x": values}, labels))
    return (rows if seed is None else rows.shuffle(EXAMPLES, seed=seed)).batch(8)


def _build() -> tf_keras.Model:
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.InputLayer((6,), name="x"),
            layers.Dense(8, name="hidden"),
            layers.BatchNormalization(momentum=0.8, name="normalization"),
            layers.ReLU(name="relu"),
            layers.Dropout(0.1, name="dropout"),
            layers.Dense(3, activation="softmax", name="y"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@functools.cache
def _strategy(distribution: str) -> tf.distribute.Strategy:
    """One for the process: keys of collective ops of further ones would clash with its own."""
    return make_strategy(distribution, 8)


def _train(distribution: str, directory: Path, log_dir: Path | None = None) -> TrainedModels:
    strategy = _strategy(distribution)  # several workers find each other before TensorFlow does anything else
    parameters = TrainingParameters(
        float_epochs=2,
        qat_epochs=1,
        batch_size=8,
        float_learning_rate=0.02,
        distillation_weight=0.3,
        checkpoint_steps=4,
        distribution=distribution,
    )
    return QuantizationAwareTraining(_dataset, _dataset, parameters, log_dir).run(
        _build, load_scheme("full_int8"), checkpoint_dir=directory, strategy=strategy
    )


def _save(trained: TrainedModels, path: Path) -> None:
    arrays = {f"weights{index}": weights for index, weights in enumerate(trained.quantized_model.get_weights())}
    ranges = [[float(q.minimum), float(q.maximum)] for q in quantizers(trained.quantized_model)]
    np.savez(path, ranges=ranges, **{f"metric_{n}": v for n, v in trained.quantized_metrics.items()}, **arrays)


def _train_mirrored(directory: Path) -> None:
    """Trains on one device and on two, then on two once more, killed and run again."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for distribution in ("none", "mirrored"):
        _save(_train(distribution, directory / distribution), directory / f"{distribution}.npz")
    steps, is_due = iter(range(1, 1000)), Progress.is_due

    def killed(self: Progress, state: TrainingState) -> bool:
        if next(steps) == 17:  # the fifth step of fine-tuning
            raise _Killed
        return False

    Progress.is_due = killed  # type: ignore[method-assign]
    with contextlib.suppress(_Killed):
        _train("mirrored", directory / "killed")
    Progress.is_due = is_due  # type: ignore[method-assign]
    _save(_train("mirrored", directory / "killed"), directory / "resumed.npz")
    _save(_climb(), directory / "climbed.npz")
    _save(_train_last_batch_of_one(), directory / "small.npz")


def _train_last_batch_of_one() -> TrainedModels:
    """Images whose last batch is too small for two devices, normalized; the strategy is made in passing."""

    def dataset(seed: int | None) -> tf.data.Dataset:
        values = np.random.default_rng(3).random((41, 6, 6, 2), np.float32)
        rows = tf.data.Dataset.from_tensor_slices(({"x": values}, np.arange(41) % 3))
        return (rows if seed is None else rows.shuffle(41, seed=seed)).batch(8)

    def build() -> tf_keras.Model:
        layers = tf_keras.layers
        stack = [layers.InputLayer((6, 6, 2), name="x"), layers.Conv2D(4, 3), layers.BatchNormalization()]
        model = tf_keras.Sequential([*stack, layers.Flatten(), layers.Dense(3, activation="softmax", name="y")])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    looks = []

    def hold(tflite: bytes, when: str) -> None:
        looks.append((tflite[4:8], when, tf.distribute.has_strategy()))

    planned = PlannedConversion(profile="edge_tpu", hold=hold, gated=True)
    parameters = TrainingParameters(float_epochs=2, qat_epochs=1, batch_size=8, distribution="mirrored", probe_steps=3)
    training = QuantizationAwareTraining(dataset, dataset, parameters)
    trained = training.run(build, load_scheme("full_int8"), conversions=[planned])
    when = ("before anything was trained", "after 3 steps of qat training")
    assert looks == [(b"TFL3", one, False) for one in when]
    return trained


def _climb() -> TrainedModels:
    """Up to the second rung, on two devices; the first question is which metrics there are."""
    answers = iter([False, False, True])
    options = LadderOptions(judge=lambda integer, parent: (next(answers), ()))
    parameters = TrainingParameters(
        strategy="auto", float_epochs=2, qat_epochs=1, batch_size=8, float_learning_rate=0.02, distribution="mirrored"
    )
    return QuantizationAwareTraining(_dataset, _dataset, parameters).run(
        _build, load_scheme("full_int8"), ladder=options, strategy=_strategy("mirrored")
    )


def _train_worker(directory: Path, index: int) -> None:
    """Trains as one of several workers."""
    trained = _train("multi_worker_mirrored", directory / "checkpoints", directory / "logs" / str(index))
    _save(trained, directory / f"{index}.npz")


def _publish(directory: Path, role: str) -> None:
    """Publishes as the chief, some time after the worker has nothing left to do; notes what it sees at its end."""
    strategy = _strategy("multi_worker_mirrored")
    wait_for_all(strategy)
    if is_chief(strategy):
        time.sleep(3)
        (directory / "published").touch()
    wait_for_all(strategy)
    (directory / f"seen_by_{role}").write_text(str((directory / "published").exists()))


def _start(mode: str, directory: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, mode, str(directory)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait(*processes: subprocess.Popen[str]) -> None:
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output[-5000:]
    finally:
        for process in processes:
            process.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _load(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `_train_mirrored` leaves; logical devices can be set up only before TensorFlow starts."""
    directory = tmp_path_factory.mktemp("mirrored")
    _wait(_start("mirrored", directory))
    return directory


@pytest.mark.long
def test_mirrored_training_keeps_all_variables_equal_but_statistics_that_are_averaged_when_read(mirrored: Path) -> None:
    newest = _load(sorted((mirrored / "mirrored").glob("qat-*.npz"))[-1])
    variables = [key for key in newest if key.startswith("model/") and key.endswith("/0")]
    differing = [key for key in variables if not np.array_equal(newest[key], newest[f"{key[:-1]}1"])]
    # Ranges among those that do not: three scalars for each of three at least.
    assert len(variables) >= 8 + 9
    assert [newest[key].shape for key in differing] == [(8,), (8,)]


@pytest.mark.long
def test_mirrored_training_ends_within_noise_of_one_device(mirrored: Path) -> None:
    one, two = _load(mirrored / "none.npz"), _load(mirrored / "mirrored.npz")
    assert two["metric_loss"] == pytest.approx(one["metric_loss"], rel=0.15)
    widths = [np.ptp(each["ranges"], axis=1) for each in (one, two)]
    np.testing.assert_allclose(*widths, rtol=0.5)


@pytest.mark.long
def test_mirrored_training_ends_with_the_same_weights_when_it_was_killed_and_run_again(mirrored: Path) -> None:
    _assert_same(_load(mirrored / "resumed.npz"), _load(mirrored / "mirrored.npz"))


@pytest.mark.long
def test_ladder_fine_tunes_on_two_replicas_and_gives_a_model_outside_of_them(mirrored: Path) -> None:
    climbed = _load(mirrored / "climbed.npz")
    assert climbed["metric_loss"] == pytest.approx(_load(mirrored / "mirrored.npz")["metric_loss"], rel=0.2)
    assert np.all(np.ptp(climbed["ranges"], axis=1) > 0)


@pytest.mark.long
def test_mirrored_training_ends_when_the_last_batch_is_too_small_for_all_replicas(mirrored: Path) -> None:
    small = _load(mirrored / "small.npz")
    assert np.isfinite(small["metric_loss"])
    assert np.all(np.ptp(small["ranges"], axis=1) > 0)


def test_batches_are_left_out_when_a_replica_would_get_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    summary = summarize_split("train", _dataset, _build(), replicas=8)
    assert (summary.examples, summary.batches, summary.left_out) == (EXAMPLES, 5, 1)
    assert "train split: left out 1 of 6 batches, too small for 8 replicas" in caplog.text
    kept = without_small_batches(_dataset(None), types.SimpleNamespace(num_replicas_in_sync=8))
    assert [len(labels) for _, labels in kept.as_numpy_iterator()] == [8] * 5
    with pytest.raises(ValueError, match="the train split has no batch that 16 replicas can share; got 44 examples"):
        summarize_split("train", _dataset, _build(), replicas=16)


@pytest.mark.long
def test_multi_worker_training_gives_all_workers_the_result_of_one_process(tmp_path: Path, mirrored: Path) -> None:
    workers = [f"localhost:{port}" for port in _free_ports(2)]
    _wait(
        *(
            _start(
                "worker",
                tmp_path,
                TF_CONFIG=json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}),
            )
            for index in range(2)
        )
    )
    first, second, one = (_load(tmp_path / "0.npz"), _load(tmp_path / "1.npz"), _load(mirrored / "none.npz"))
    _assert_same(first, second)
    assert first["metric_loss"] == pytest.approx(one["metric_loss"], rel=0.15)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["worker-0", "worker-1"]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["0"]


@pytest.mark.extended
def test_wait_for_all_keeps_a_worker_until_the_chief_has_published(tmp_path: Path) -> None:
    chief, worker = (f"localhost:{port}" for port in _free_ports(2))
    cluster = {"chief": [chief], "worker": [worker]}
    roles = ("chief", "worker")
    _wait(
        *(
            _start("publish", tmp_path, TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": role, "index": 0}}))
            for role in roles
        )
    )
    assert [(tmp_path / f"seen_by_{role}").read_text() for role in roles] == ["True", "True"]


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'],
    ids=["unset", "empty", "no such worker"],
)
def test_make_strategy_raises_when_tf_config_is_wrong(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="environment variable TF_CONFIG is .* expected .* Vertex AI sets it"):
        make_strategy("multi_worker_mirrored", 8)


@pytest.mark.parametrize(
    ("jobs", "role", "index", "expected"),
    [
        (["chief", "worker"], "chief", 0, True),
        (["chief", "worker"], "worker", 0, False),
        (["worker"], "worker", 0, True),
        (["worker"], "worker", 1, False),
        ([], "", 0, True),
    ],
)
def test_is_chief_task_is_the_chief_or_the_first_worker_when_there_is_none(
    jobs: list[str], role: str, index: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"cluster": {job: ["a:1", "b:1"] for job in jobs}, "task": {"type": role, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config if jobs else {}))
    assert is_chief_task(tf.distribute.cluster_resolver.TFConfigClusterResolver()) is expected


def test_worker_dir_is_the_directory_itself_when_there_is_one_process(tmp_path: Path) -> None:
    assert worker_dir(tmp_path, make_strategy("none", 7)) == tmp_path


if __name__ == "__main__":
    target = Path(sys.argv[2])
    if sys.argv[1] == "mirrored":
        _train_mirrored(target)
    elif sys.argv[1] == "publish":
        _publish(target, json.loads(os.environ["TF_CONFIG"])["task"]["type"])
    else:
        _train_worker(target, json.loads(os.environ["TF_CONFIG"])["task"]["index"])
