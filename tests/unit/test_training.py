from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.qat.parameters import TrainingParameters
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
