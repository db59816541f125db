"""A training that is killed and run again ends as one that was not. Run as a script, this is such a training."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.qat import checkpoints, training
from components.quantization.qat.checkpoints import TrainingState
from components.quantization.qat.fingerprint import training_fingerprint
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.preflight import PlannedConversion, preflight
from components.quantization.qat.progress import Progress
from components.quantization.qat.random_state import random_states
from components.quantization.qat.splits import SplitSummary
from components.quantization.qat.training import QuantizationAwareTraining
from components.quantization.schemes import load_scheme

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = 44  # six batches, the last one smaller
# Checkpoints lie within epochs and at their ends; float training stops early.
KNOBS = {
    "float_epochs": 6,
    "qat_epochs": 3,
    "float_learning_rate": 0.1,
    "qat_learning_rate": 0.05,
    "learning_rate_schedule": "cosine",
    "gradient_clip_norm": 1.0,
    "early_stopping_patience": 1,
    "freeze_observers_after_steps": 9,
    "freeze_batch_normalization_after_steps": 8,
    "distillation_weight": 0.5,
    "checkpoint_steps": 4,
}
pytestmark = pytest.mark.long


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def _dataset(seed: int | None) -> tf.data.Dataset:
    values = np.random.default_rng(3).random((EXAMPLES, 6), np.float32)
    rows = tf.data.Dataset.from_tensor_slices(({"x": values}, np.arange(EXAMPLES) % 3))
    return (rows if seed is None else rows.shuffle(EXAMPLES, seed=seed)).batch(8)


def _build() -> tf_keras.Model:
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.InputLayer((6,), name="x"),
            layers.Dense(5, name="hidden"),
            layers.BatchNormalization(momentum=0.8, name="normalization"),
            layers.ReLU(name="relu"),
            layers.Dropout(0.4, name="dropout"),
            layers.Dense(3, activation="softmax", name="y"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _train(
    directory: Path | None, scheme: str = "full_int8", conversions: Sequence[PlannedConversion] = (), **knobs: Any
) -> list[np.ndarray]:
    """Trains; returns all variables of the models, of their optimizers and of their random generators."""
    parameters = TrainingParameters(**{**KNOBS, **knobs})
    trained = QuantizationAwareTraining(_dataset, _dataset, parameters).run(
        _build, load_scheme(scheme), checkpoint_dir=directory, conversions=conversions
    )
    values = []
    for model in (trained.float_model, trained.quantized_model):
        states = random_states(model)
        assert states, "the state of dropout is not in a variable"
        values += [variable.numpy() for variable in [*model.variables, *(model.optimizer.variables or ()), *states]]
    return values


def _at_step(number: int, act: Callable[[], None]) -> Callable[[Progress, TrainingState], bool]:
    """Stands in for Progress.is_due, which is asked once a step, after any checkpoint."""
    steps = iter(range(1, 1000))

    def is_due(self: Progress, state: TrainingState) -> bool:
        if next(steps) == number:
            act()
        return False

    return is_due


def _raise(*_: object) -> None:
    raise Killed


def _assert_equal(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    assert len(first) == len(second)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def finished_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="module")
def uninterrupted(finished_dir: Path) -> list[np.ndarray]:
    """What a training that nobody kills ends with; its checkpoints are left in `finished_dir`."""
    return _train(finished_dir)


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the step at which a training dies; steps of both loops counted together, 0 for none."""
    return lambda number: monkeypatch.setattr(Progress, "is_due", _at_step(number, _raise))


def test_uninterrupted_run_stops_early_and_takes_its_best_weights(uninterrupted: Any, finished_dir: Path) -> None:
    newest = sorted(finished_dir.glob("float-*.npz"))[-1]
    state, groups = checkpoints.Checkpoints(finished_dir, "float", _fingerprint(newest)).load(_number(newest))
    assert state.finished
    assert 0 < state.best_epoch < state.epoch < KNOBS["float_epochs"]
    for values, best in zip(groups["model"], groups["best"], strict=True):
        _assert_equal(values, best)


def test_run_trains_no_step_when_it_was_killed_after_the_last_one(
    uninterrupted: list[np.ndarray], finished_dir: Path, kill_at: Callable[[int], None]
) -> None:
    kill_at(1)
    _assert_equal(_train(finished_dir), uninterrupted)


def test_run_ends_with_the_same_weights_when_killed_between_checkpoints_and_while_writing_one(
    uninterrupted: list[np.ndarray], kill_at: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(7)
    with pytest.raises(Killed):
        _train(tmp_path)
    kill_at(0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _raise)
        with pytest.raises(Killed):
            _train(tmp_path)
    assert list(tmp_path.glob("*.tmp"))
    _assert_equal(_train(tmp_path), uninterrupted)


def test_run_tries_the_conversion_once_and_without_trace_when_it_is_killed_and_run_again(
    uninterrupted: list[np.ndarray], kill_at: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def counted(*arguments: Any) -> bytes:
        tried.append(arguments[2])
        return preflight(*arguments)

    monkeypatch.setattr(training, "preflight", counted)
    kill_at(7)
    with pytest.raises(Killed):
        _train(tmp_path, conversions=[PlannedConversion(profile="cpu")])
    kill_at(0)
    _assert_equal(_train(tmp_path, conversions=[PlannedConversion(profile="cpu")]), uninterrupted)
    assert tried == ["cpu"]


def test_run_ends_with_the_same_weights_when_the_process_was_killed_in_either_loop(
    uninterrupted: list[np.ndarray], tmp_path: Path
) -> None:
    for step, loops in ((10, {"float"}), (20, {"float", "qat"})):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-W", "ignore", __file__, str(tmp_path), str(step)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == -signal.SIGKILL, result.stderr
        assert {path.name.split("-")[0] for path in tmp_path.glob("*.npz")} == loops
    _assert_equal(_train(tmp_path), uninterrupted)


def test_run_starts_anew_when_the_checkpoint_is_another_training_s(
    finished_dir: Path, uninterrupted: Any, kill_at: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = shutil.copytree(finished_dir, tmp_path / "copy")
    kill_at(1)
    with pytest.raises(Killed):
        _train(directory, seed=2)
    assert "is of other model, parameters: not used" in caplog.text
    assert not list(directory.glob("float-*"))


def test_fingerprint_tells_what_differs() -> None:
    model, split = _build(), SplitSummary(examples=1, batches=1, sha256="a")
    arguments = (TrainingParameters(), load_scheme("full_int8"), (model,), (split,), 1)
    changes: dict[int, tuple[Any, str]] = {
        0: (TrainingParameters(seed=2), "parameters"),
        1: (load_scheme("full_int8_per_tensor"), "scheme"),
        2: ((_build(),), "model"),  # other initial weights
        3: ((SplitSummary(examples=1, batches=1, sha256="b"),), "data"),
        4: (2, "number of replicas"),
    }
    before = training_fingerprint(*arguments)
    assert training_fingerprint(*arguments) == before
    for position, (value, name) in changes.items():
        after = training_fingerprint(*(value if i == position else old for i, old in enumerate(arguments)))  # type: ignore[arg-type]
        assert [key for key in before if before[key] != after[key]] == [name]


def test_checkpoints_fall_back_to_the_one_before_when_the_newest_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, state = checkpoints.Checkpoints(tmp_path, "qat", {"scheme": "a"}), TrainingState()
    for value in range(3):
        store.save(state, {"model": [[np.array(value)]]})
    newest = sorted(tmp_path.iterdir())[-1]
    assert [_number(path) for path in sorted(tmp_path.iterdir())] == [2, 3]
    newest.write_bytes(newest.read_bytes()[:100])
    assert store.newest() == 2
    assert "cannot be read" in caplog.text
    loaded, groups = store.load(2)
    assert (loaded.saves, groups["model"][0][0]) == (2, 1)
    with pytest.raises(ValueError, match="cannot be read: .* delete .* to train from the start"):
        store.load(9)
    checkpoints.remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def _fingerprint(path: Path) -> dict[str, str]:
    with np.load(path) as file:
        return dict(json.loads(str(file["fingerprint"])))


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])


if __name__ == "__main__":
    Progress.is_due = _at_step(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[method-assign]
    _train(Path(sys.argv[1]))
