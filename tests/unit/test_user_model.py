from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.training import QuantizationAwareTraining
from components.quantization.qat.user_model import trainable_model
from components.quantization.schemes import load_scheme

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _quick() -> None:
    leave_libraries_alone()


class Subclassed(tf_keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="mine")
        self.hidden = tf_keras.layers.Dense(5, activation="relu", name="hidden")
        self.head = tf_keras.layers.Dense(3, activation="softmax", name="y")

    def call(self, inputs: Any) -> Any:
        return self.head(self.hidden(inputs["x"]))


class OwnStep(tf_keras.Model):  # type: ignore[misc]
    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def _subclassed() -> tf_keras.Model:
    model = Subclassed()
    model({"x": np.zeros((1, 4), np.float32)})
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _keras3() -> keras.Model:
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(5, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="y")(hidden))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="hits"), keras.metrics.sparse_categorical_crossentropy],
    )
    return model


def _dataset(seed: int | None) -> tf.data.Dataset:
    values = np.random.default_rng(3).random((24, 4), np.float32)
    return tf.data.Dataset.from_tensor_slices(({"x": values}, np.arange(24) % 3)).batch(8)


@pytest.mark.parametrize("build", [_subclassed, _keras3])
def test_models_of_any_kind_are_trained_quantized_and_measured(build: Any) -> None:
    training = QuantizationAwareTraining(_dataset, _dataset, TrainingParameters(float_epochs=1, qat_epochs=1))
    trained = training.run(build, load_scheme("full_int8"))
    assert trained.float_model.input_names == ["x"]
    assert set(trained.float_metrics) == set(trained.quantized_metrics) >= {"loss"}
    assert all(np.isfinite(value) for value in trained.quantized_metrics.values())


def test_compilation_of_keras_3_keeps_settings_and_own_functions() -> None:
    model = trainable_model(_keras3())
    assert isinstance(model, tf_keras.Model)
    assert (type(model.optimizer).__name__, model.optimizer.momentum) == ("SGD", 0.8)
    assert model.optimizer.get_config()["learning_rate"]["config"]["decay_steps"] == 10
    assert model.loss.get_config()["from_logits"] is True
    images, labels = np.zeros((2, 4), np.float32), np.array([0, 2])
    found = model.evaluate(images, labels, return_dict=True, verbose=0)
    assert found["loss"] == pytest.approx(np.log(3), rel=1e-5)
    assert found["hits"] == 0.5

    def own(labels: Any, outputs: Any) -> Any:
        return tf.reduce_sum(tf.square(outputs), axis=-1)

    other = _keras3()
    other.compile("adam", own)
    assert trainable_model(other).loss is own


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(2,))]), "expected a compiled Keras model"),
        (keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "expected a compiled Keras model"),
        (tf.Module(), "expected a compiled Keras model"),
    ],
)
def test_models_that_are_not_compiled_are_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainable_model(model)


def test_models_with_a_training_of_their_own_are_refused() -> None:
    inputs = tf_keras.Input((2,))
    model = OwnStep(inputs, tf_keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="overrides train_step, which its quantized copy would not have"):
        trainable_model(model)
