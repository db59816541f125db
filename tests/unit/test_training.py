import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.preflight import PlannedConversion
from components.quantization.qat.training import QuantizationAwareTraining
from components.quantization.schemes import load_scheme

import small_models as models

pytestmark = pytest.mark.slow
SCHEME = load_scheme("full_int8")


def _data(count: int = 48, labels: int = 3, name: str = "image", value: float | None = None) -> Any:
    images = models.images(count) if value is None else np.full((count, 8, 8, 1), value, np.float32)

    def dataset(seed: int | None) -> tf.data.Dataset:
        rows = tf.data.Dataset.from_tensor_slices(({name: images}, np.arange(count) % labels))
        return (rows if seed is None else rows.shuffle(100, seed=seed)).batch(16)

    return dataset


def _build() -> tf_keras.Model:
    model = models.convolutional()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _train(data: Any = None, build: Any = _build, log_dir: Path | None = None, **parameters: Any) -> Any:
    data = data or _data()
    knobs = TrainingParameters(**{"float_epochs": 2, "qat_epochs": 1, **parameters})
    return QuantizationAwareTraining(data, data, knobs, log_dir).run(build, SCHEME)


def test_run_gives_the_same_weights_when_the_seed_is_the_same() -> None:
    first, second, other = (_train(seed=seed).quantized_model.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_run_logs_both_loops_and_measures_both_models(tmp_path: Path) -> None:
    trained = _train(log_dir=tmp_path)
    assert set(trained.float_metrics) == set(trained.quantized_metrics) == {"loss", "accuracy"}
    assert {path.name for path in tmp_path.iterdir()} == {"float", "qat"}
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    history = json.loads((tmp_path / "float" / "history.json").read_text())
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert {len(values) for values in history.values()} == {2}  # epochs
    assert history["val_accuracy"][-1] == pytest.approx(trained.float_metrics["accuracy"])


def test_run_trains_as_many_steps_as_told() -> None:
    trained = _train(train_steps=5, float_epochs=2)
    assert int(trained.float_model.optimizer.iterations) == 10


def test_run_skips_float_training_when_there_is_a_base_model() -> None:
    base = _build()
    before = [weights.copy() for weights in base.get_weights()]
    data = _data()
    trained = QuantizationAwareTraining(data, data, TrainingParameters(qat_epochs=1)).run(_build, SCHEME, base)
    assert trained.float_model is base
    assert all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))


def test_run_stops_early_when_the_validation_loss_gets_worse() -> None:
    trained = _train(float_epochs=50, early_stopping_patience=1, float_learning_rate=0.5)
    assert int(trained.float_model.optimizer.iterations) < 50 * 3


def _own_loss(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    return tf_keras.losses.sparse_categorical_crossentropy(labels, scores)


def test_run_takes_functions_and_schedules_of_the_user_s_own() -> None:
    def build() -> tf_keras.Model:
        model = models.convolutional()
        schedule = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        model.compile(tf_keras.optimizers.SGD(schedule), _own_loss, metrics=[_own_loss])
        return model

    trained = _train(build=build, qat_learning_rate=0.25)
    assert set(trained.quantized_metrics) == {"loss", "_own_loss"}
    assert float(trained.quantized_model.optimizer.learning_rate) == 0.25


def test_run_keeps_the_names_of_outputs_when_there_are_two_with_losses_by_name() -> None:
    def build() -> tf_keras.Model:
        base = models.convolutional()
        second = tf_keras.layers.Dense(1, name="height")(base.get_layer("flatten").output)
        model = tf_keras.Model(base.input, [base.output, second])
        model.compile("adam", {"probabilities": "sparse_categorical_crossentropy", "height": "mse"})
        return model

    def data(seed: int | None) -> tf.data.Dataset:
        labels = {"probabilities": np.arange(48) % 3, "height": np.ones(48, np.float32)}
        return tf.data.Dataset.from_tensor_slices(({"image": models.images(48)}, labels)).batch(16)

    trained = _train(data=data, build=build)
    assert trained.quantized_model.output_names == ["probabilities", "height"]
    assert "height_loss" in trained.quantized_metrics


def _sloped() -> tf_keras.Model:
    layers = tf_keras.layers
    stack = [layers.InputLayer((8, 8, 1), name="image"), layers.PReLU(name="slope"), layers.Flatten()]
    model = tf_keras.Sequential([*stack, layers.Dense(3, activation="softmax", name="probabilities")], name="sloped")
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("scheme", "io_dtype", "message"),
    [
        (
            "int16x8",
            "",
            "model 'sloped' cannot be converted with scheme 'int16x8' for target 'cpu', tried before anything was"
            " trained: TensorFlow's converter refuses the model: .*'PRELU'",
        ),
        ("full_int8", "int16", "for target 'cpu', .* trained: io_dtype: got 'int16', expected one of int8, uint8"),
    ],
    ids=["op", "type"],
)
def test_run_raises_before_a_step_when_the_conversion_would_fail(scheme: str, io_dtype: str, message: str) -> None:
    seeds = []

    def data(seed: int | None) -> tf.data.Dataset:
        seeds.append(seed)
        return _data()(seed)

    with pytest.raises(ValueError, match=message):
        QuantizationAwareTraining(data, data, TrainingParameters()).run(
            _sloped, load_scheme(scheme), conversions=[PlannedConversion(profile="cpu", io_dtype=io_dtype or None)]
        )
    assert set(seeds) == {None}  # a pass that trains has a seed


@pytest.mark.extended
@pytest.mark.parametrize("scheme", ["full_int8", "int16x8", "int4_weights"])
def test_run_tries_the_conversion_and_changes_nothing_by_it(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    def build() -> tf_keras.Model:
        model = models.convolutional()
        model.get_layer("probabilities").kernel.assign(np.zeros((36, 3)))  # as layers do that begin with zeros
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    caplog.set_level(logging.INFO)
    training = QuantizationAwareTraining(_data(), _data(), TrainingParameters(float_epochs=1, qat_epochs=1))
    tried, plain = (
        training.run(build, load_scheme(scheme), conversions=conversions)
        for conversions in ([PlannedConversion(profile="cpu")], [])
    )
    assert sum("conversion tried without training in" in message for message in caplog.messages) == 1
    for one, other in ((tried.float_model, plain.float_model), (tried.quantized_model, plain.quantized_model)):
        assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
        assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
        assert one.name == other.name


def test_run_names_the_ranges_when_a_feature_is_infinite() -> None:
    def build() -> tf_keras.Model:
        layers = tf_keras.layers
        stack = [layers.InputLayer((8, 8, 1), name="image"), layers.ReLU(max_value=6.0), layers.Flatten()]
        model = tf_keras.Sequential([*stack, layers.Dense(8, "relu"), layers.Dense(3, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    def data(seed: int | None) -> tf.data.Dataset:
        def broken(features: dict[str, tf.Tensor], label: tf.Tensor) -> Any:
            return {"image": tf.where(label == 0, np.inf, features["image"])}, label

        return _data()(None).unbatch().map(broken).batch(16)

    message = (
        r"qat training, epoch 1: ranges are not finite in image_range \(0 to (inf|nan)\).*; look for features that"
    )
    with pytest.raises(ValueError, match=message):
        _train(data=data, build=build)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": _data(count=0)}, "the train split has no examples"),
        ({"data": _data(labels=5)}, "run from 0 to 4, but the model has 3 outputs, for labels 0 to 2"),
        ({"data": _data(name="picture")}, r"inputs \['image'\] are no features; there are \['picture'\]"),
        ({"data": _data(value=float("nan"))}, "float training stopped in epoch 1 because the loss is not a number"),
        ({"build": models.convolutional}, "expected a compiled Keras model"),
    ],
    ids=["empty", "classes", "feature", "nan", "not compiled"],
)
def test_run_raises_when_the_training_cannot_succeed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _train(**arguments)
