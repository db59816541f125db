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
    first, second, other = (_train(seed=seed).qat_model.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_run_logs_both_loops_and_measures_both_models(tmp_path: Path) -> None:
    trained = _train(log_dir=tmp_path)
    assert set(trained.float_metrics) == set(trained.qat_metrics) == {"loss", "accuracy"}
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": _data(count=0)}, "the train split has no examples"),
        ({"data": _data(labels=5)}, "run from 0 to 4, but the model has 3 outputs, for labels 0 to 2"),
        ({"data": _data(name="picture")}, r"inputs \['image'\] are no features; there are \['picture'\]"),
        ({"data": _data(value=float("nan"))}, "float training stopped in epoch 1 because the loss is not a number"),
        ({"build": models.convolutional}, "expected a compiled tf_keras.Model"),
    ],
    ids=["empty", "classes", "feature", "nan", "not compiled"],
)
def test_run_raises_when_the_training_cannot_succeed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _train(**arguments)
