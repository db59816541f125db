import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.util import event_pb2

from components.quantization.autograph import leave_libraries_alone
from components.quantization.qat import progress
from components.quantization.qat.checkpoints import TrainingState
from components.quantization.qat.compilation import compile_as
from components.quantization.qat.distillation import DistilledModel
from components.quantization.qat.early_stopping import EarlyStopping
from components.quantization.qat.freezing import quantizers
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.random_state import seeded
from components.quantization.qat.splits import TrainingPasses, sample_batches
from components.quantization.qat.training import QuantizationAwareTraining, TrainedModels
from components.quantization.schemes import load_scheme

layers = tf_keras.layers


@pytest.fixture(autouse=True, scope="module")
def _quick() -> None:
    leave_libraries_alone()


def _dataset(seed: int | None) -> tf.data.Dataset:
    values = np.random.default_rng(3).random((24, 4), np.float32)
    rows = tf.data.Dataset.from_tensor_slices(({"x": values}, np.arange(24) % 3))
    return (rows if seed is None else rows.shuffle(24, seed=seed)).batch(8)


def _normalized() -> tf_keras.Model:
    model = tf_keras.Sequential(
        [
            layers.InputLayer((4,), name="x"),
            layers.Dense(5, name="hidden"),
            layers.BatchNormalization(momentum=0.5, name="normalization"),
            layers.Dense(3, activation="softmax", name="y"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _fine_tuned(log_dir: Path | None = None, **knobs: Any) -> TrainedModels:
    """Fine-tunes an untrained model for one epoch."""
    tf_keras.utils.set_random_seed(1)
    parameters = TrainingParameters(qat_epochs=1, **knobs)
    training = QuantizationAwareTraining(_dataset, _dataset, parameters, log_dir)
    return training.run(_normalized, load_scheme("full_int8"), _normalized())


def _ranges(model: tf_keras.Model) -> list[float]:
    return [float(end) for quantizer in quantizers(model) for end in (quantizer.minimum, quantizer.maximum)]


def _statistics(model: tf_keras.Model) -> list[np.ndarray]:
    found = [each for each in model._flatten_layers() if isinstance(each, layers.BatchNormalization)]
    assert len(found) == 1
    return [weights.numpy() for weights in found[0].weights]


def _scalars(directory: Path) -> dict[str, float]:
    """The last value of each scalar in TensorBoard's only file there."""
    (file,) = directory.glob("events.out.tfevents.*")
    events = [event_pb2.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    return {value.tag: float(tf.make_ndarray(value.tensor)) for event in events for value in event.summary.value}


@pytest.mark.long
def test_ranges_and_normalization_stay_as_they_are_when_frozen_after_a_step() -> None:
    one = _fine_tuned(train_steps=1).quantized_model
    moving = _fine_tuned(train_steps=3).quantized_model
    frozen = _fine_tuned(
        train_steps=3, freeze_observers_after_steps=1, freeze_batch_normalization_after_steps=1
    ).quantized_model
    assert _ranges(frozen) == _ranges(one) != _ranges(moving)
    assert all(map(np.array_equal, _statistics(frozen), _statistics(one)))
    assert not any(map(np.array_equal, _statistics(frozen), _statistics(moving)))
    kernels = [model.get_layer("hidden").layer.kernel.numpy() for model in (frozen, one)]
    assert not np.array_equal(*kernels)


@pytest.mark.long
def test_normalization_of_a_frozen_layer_stays_as_it_is() -> None:
    def frozen(*_: Any) -> tf_keras.Model:
        model = _normalized()
        model.get_layer("normalization").trainable = False
        return model

    training = QuantizationAwareTraining(_dataset, _dataset, TrainingParameters(float_epochs=1, qat_epochs=1))
    trained = training.run(frozen, load_scheme("full_int8"))
    before = [weights.numpy() for weights in frozen().get_layer("normalization").weights]
    assert all(map(np.array_equal, _statistics(trained.quantized_model), before))
    assert all(map(np.array_equal, _statistics(trained.float_model), before))


@pytest.mark.long
def test_run_logs_progress_and_ranges(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trained = _fine_tuned(tmp_path)
    line = next(message for message in caplog.messages if "epoch 1/1" in message)
    for part in ("qat training: ", "step 3/3", "loss ", "val_accuracy ", "examples/s", "0:00:00 left"):
        assert part in line
    scalars = _scalars(tmp_path / "qat")
    assert {"epoch/loss", "epoch/val_loss", "epoch/accuracy", "examples_per_second"} <= set(scalars)
    for quantizer in quantizers(trained.quantized_model):
        assert scalars[f"range/{quantizer.name}/maximum"] == np.float32(quantizer.maximum)


class _Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_progress_tells_rate_and_time_left_within_an_epoch_and_at_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    state, reporter = TrainingState(), progress.Progress("qat", _linear(), tmp_path)
    reporter.begin(state, epochs=3, epoch_steps=1000, batch_examples=8.0)
    due = []
    for step, seconds in enumerate((30.0, 9.0, 1.0), start=1):  # the first step traces the model
        clock.now += seconds
        state.step = state.total_steps = step
        due.append(reporter.is_due(state))
    assert due == [False, False, True]
    reporter.report_step(state, {"loss": 0.25})
    # 2 steps of 8 examples in 10 s; 3 * 1000 - 3 steps are left, at 0.2 a second: 14985 s.
    assert caplog.messages[-1] == (
        "qat training: epoch 1/3, step 3/1000, loss 0.25, 1.6 examples/s, 4:09:45 left at most"
    )
    clock.now += 4.0
    state.total_steps, state.epoch = 1000, 1
    reporter.report_epoch(state, {"loss": 0.5}, reporter.steps_per_second(state))
    # 997 steps in 4 s, 249.25 a second; 2000 are left: 8.02 s.
    assert caplog.messages[-1] == (
        "qat training: epoch 1/3, step 1000/1000, loss 0.5, 1994 examples/s, 0:00:08 left at most"
    )
    assert _scalars(tmp_path)["examples_per_second"] == pytest.approx(1994.0)


def test_progress_gives_tensorboard_no_rate_when_it_is_not_known(tmp_path: Path) -> None:
    state, reporter = TrainingState(), progress.Progress("qat", _linear(), tmp_path)
    reporter.begin(state, epochs=1, epoch_steps=2, batch_examples=8.0)
    state.step = state.total_steps = 1
    assert not reporter.is_due(state)
    reporter.report_step(state, {"loss": 0.5})
    reporter.report_epoch(state, {"loss": 0.5}, reporter.steps_per_second(state))
    assert set(_scalars(tmp_path)) == {"step/loss", "epoch/loss"}


@pytest.mark.long
def test_run_ends_with_the_weights_that_were_measured_when_the_optimizer_averages_and_stops_early(
    tmp_path: Path,
) -> None:
    def averaging() -> tf_keras.Model:
        model = _normalized()
        model.compile(tf_keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "sparse_categorical_crossentropy")
        return model

    knobs = TrainingParameters(float_epochs=4, float_learning_rate=3.0, qat_epochs=1, early_stopping_patience=2)
    training = QuantizationAwareTraining(_dataset, _dataset, knobs)
    trained = training.run(averaging, load_scheme("full_int8"), checkpoint_dir=tmp_path)
    with np.load(sorted(tmp_path.glob("float-*"))[-1]) as file:
        state = json.loads(str(file["state"]))
    assert trained.float_metrics["loss"] == pytest.approx(min(state["history"]["val_loss"]), rel=1e-5)


def test_sample_batches_draws_from_all_over_a_split_by_seed() -> None:
    def dataset(seed: int | None) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(({"x": np.arange(100.0)}, np.arange(100) // 50)).batch(7)

    def sample(count: int, seed: int = 1) -> list[list[float]]:
        return [batch["x"].tolist() for batch in sample_batches(dataset, 100, count, 8, seed)]

    drawn = sample(20)
    flat = sum(drawn, [])  # noqa: RUF017
    assert [len(batch) for batch in drawn] == [8, 8, 4]
    assert flat == sorted(set(flat))
    assert sum(value < 50 for value in flat) in range(5, 16)
    assert drawn == sample(20) != sample(20, seed=2)
    assert sum(sample(300), []) == list(range(100))  # noqa: RUF017


@pytest.mark.long
@pytest.mark.parametrize("place", ["policy", "layer", "base model"])
def test_run_raises_when_a_layer_is_in_half_precision(place: str) -> None:
    def half() -> tf_keras.Model:
        model = tf_keras.Sequential([layers.InputLayer((4,), name="x"), layers.Dense(3, dtype="mixed_float16")])
        model.compile("sgd", "mse")
        return model

    training = QuantizationAwareTraining(_dataset, _dataset, TrainingParameters())
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16" if place == "policy" else "float32")
    build, base = half if place == "layer" else _normalized, half() if place == "base model" else None
    try:
        with pytest.raises(ValueError, match=r"in half precision in .*float16\).*, expected float32 in all layers: "):
            training.run(build, load_scheme("full_int8"), base)
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


@pytest.mark.long
def test_run_raises_when_the_metric_of_early_stopping_is_none_of_the_model_s() -> None:
    with pytest.raises(ValueError, match="'val_auc' is no metric of the model; choose one of val_loss, val_accuracy"):
        _fine_tuned(early_stopping_patience=1, early_stopping_metric="val_auc")


@pytest.mark.long
def test_run_raises_when_a_shuffled_pass_is_shorter() -> None:
    def dropping(seed: int | None) -> tf.data.Dataset:
        return _dataset(seed) if seed is None else _dataset(seed).take(2)

    training = QuantizationAwareTraining(dropping, _dataset, TrainingParameters())
    with pytest.raises(ValueError, match="ended after 2 batches, an unshuffled one had 3; let input_fn give as many"):
        training.run(_normalized, load_scheme("full_int8"))


def _linear() -> tf_keras.Model:
    model = tf_keras.Sequential([layers.Dense(1, use_bias=False, input_shape=(2,), kernel_initializer="zeros")])
    model.compile(tf_keras.optimizers.SGD(clipvalue=0.1), "mse")
    return model


def test_compile_as_clips_all_gradients_together_when_told() -> None:
    model = _linear()
    compile_as(model, _linear(), 1.0, 10, TrainingParameters(gradient_clip_norm=0.5))
    # The gradient of (0 - 10)^2 is -20 * (3, 4); clipped to norm 0.5 it is -(0.3, 0.4).
    model.train_on_batch(np.array([[3.0, 4.0]]), np.array([[10.0]]))
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [0.3, 0.4], rtol=1e-6)


def test_compile_as_leaves_the_optimizer_s_own_clipping_when_not_told() -> None:
    model = _linear()
    compile_as(model, _linear(), 1.0, 10, TrainingParameters())
    model.train_on_batch(np.array([[3.0, 4.0]]), np.array([[10.0]]))
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [0.1, 0.1], rtol=1e-6)


def test_compile_as_lets_the_learning_rate_fall_as_a_cosine_when_told() -> None:
    model = tf_keras.Sequential([layers.Dense(1, use_bias=False, input_shape=(1,), kernel_initializer="zeros")])
    template = tf_keras.models.clone_model(model)
    template.compile("sgd", lambda labels, outputs: tf.reduce_sum(outputs))
    compile_as(model, template, 0.1, 4, TrainingParameters(learning_rate_schedule="cosine"))
    weights = [0.0]
    for _ in range(5):
        model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))  # the gradient is 1
        weights.append(model.get_weights()[0].item())
    np.testing.assert_allclose(-np.diff(weights), 0.05 * (1 + np.cos(np.pi * np.arange(5) / 4)), atol=1e-7)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("activation", "loss", "to_scores"),
    [
        ("softmax", "sparse_categorical_crossentropy", lambda outputs: outputs),
        ("linear", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), tf.nn.softmax),
        ("sigmoid", {"y": "binary_crossentropy"}, lambda outputs: outputs),
        ("linear", [tf_keras.losses.BinaryCrossentropy(from_logits=True)], tf.sigmoid),
        ("linear", "mse", lambda outputs: outputs),
    ],
    ids=["probabilities", "logits", "yes or no", "binary logits", "values"],
)
def test_distilled_model_comes_to_the_teacher_s_outputs_and_not_to_the_labels(
    activation: str, loss: Any, to_scores: Callable[[Any], Any]
) -> None:
    def model(seed: int) -> tf_keras.Model:
        tf_keras.utils.set_random_seed(seed)
        return tf_keras.Sequential([layers.InputLayer((4,), name="x"), layers.Dense(2, activation, name="y")])

    teacher, student = model(1), model(2)
    trained = DistilledModel(student, teacher, weight=1.0, temperature=2.0, loss=loss)
    trained.compile(tf_keras.optimizers.Adam(0.1), loss)
    values = np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32)
    sparse = "Sparse" in type(loss).__name__ or "sparse" in str(loss)
    labels = np.ones((32, 1) if sparse else (32, 2))
    before = teacher.get_weights()
    for _ in range(100):
        trained.train_on_batch({"x": values}, labels)
    np.testing.assert_allclose(to_scores(student(values)), to_scores(teacher(values)), atol=0.05)
    assert all(map(np.array_equal, before, teacher.get_weights()))
    assert len(trained.variables) == len(student.variables) == 2


@pytest.mark.long
def test_run_takes_the_float_model_as_teacher_when_told() -> None:
    own, other = (
        _fine_tuned(train_steps=20, qat_learning_rate=0.01, distillation_weight=weight) for weight in (0.0, 1.0)
    )
    features = next(iter(_dataset(None).batch(3).unbatch()))[0]
    distances = [
        float(tf.reduce_mean(tf.abs(each.quantized_model(features) - each.float_model(features))))
        for each in (own, other)
    ]
    assert distances[1] < distances[0] / 2
    assert int(other.quantized_model.optimizer.iterations) == 20
    assert set(other.quantized_metrics) == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("metric", "mode", "values", "best"),
    [
        ("val_loss", "auto", (3.0, 2.0, 4.0), 2),
        ("val_accuracy", "auto", (0.3, 0.2, 0.4), 3),
        ("val_y_mean_io_u", "auto", (0.3, float("nan"), 0.1), 1),
        ("val_accuracy_loss", "auto", (0.3, 0.2, 0.4), 2),
        ("val_score", "max", (0.3, 0.3, 0.2), 1),
        ("val_accuracy", "min", (0.3, 0.2, 0.4), 2),
    ],
)
def test_early_stopping_finds_the_best_epoch(metric: str, mode: str, values: tuple[float, ...], best: int) -> None:
    knobs = TrainingParameters(early_stopping_patience=2, early_stopping_metric=metric, early_stopping_mode=mode)
    stopping, state = EarlyStopping(knobs), TrainingState()
    for epoch, value in enumerate(values, start=1):
        state.epoch = epoch
        stopping.is_best(state, {metric: value})
    assert state.best_epoch == best
    assert stopping.is_over(state) == (3 - best >= 2)


def test_training_passes_give_the_same_order_when_opened_at_any_batch() -> None:
    strategy = tf.distribute.get_strategy()

    def labels(passes: TrainingPasses) -> list[list[int]]:
        return [batch[1].numpy().tolist() for batch in passes.iterator]

    passes = TrainingPasses(_dataset, (1, 0), strategy, 0, 0)
    first = labels(passes)
    passes.next_pass()
    second = labels(passes)
    assert first != second
    assert sorted(sum(first, [])) == sorted(sum(second, []))  # noqa: RUF017
    assert labels(TrainingPasses(_dataset, (1, 0), strategy, 1, 2)) == second[2:]
    assert labels(TrainingPasses(_dataset, (1, 1), strategy, 1, 0)) != second


def test_seeded_gives_the_same_numbers_where_ops_take_no_seed() -> None:
    def numbers() -> list[Any]:
        tf.random.uniform([])  # what the process did before does not matter
        with seeded(7):
            shuffled = tf.data.Dataset.range(20).shuffle(20).map(lambda value: (value, tf.random.uniform([])))
        return [(int(value), float(number)) for value, number in shuffled]

    assert numbers() == numbers()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"distillation_weight": 1.5}, r"distillation_weight=1.5 \(0 to 1\)"),
        ({"distillation_temperature": 0.0}, r"distillation_temperature=0.0 \(above 0\)"),
        ({"gradient_clip_norm": float("nan")}, r"gradient_clip_norm=nan \(at least 0\)"),
        ({"freeze_observers_after_steps": -1}, r"freeze_observers_after_steps=-1 \(at least 0\)"),
        ({"learning_rate_schedule": "linear"}, r"learning_rate_schedule='linear' \(one of constant, cosine\)"),
        ({"distribution": "tpu"}, r"distribution='tpu' \(one of none, mirrored, multi_worker_mirrored\)"),
        ({"early_stopping_metric": "loss"}, r"early_stopping_metric=loss \(val_ and the name of a metric\)"),
    ],
)
def test_parameters_raise_when_an_option_is_out_of_range(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingParameters(**knobs)
