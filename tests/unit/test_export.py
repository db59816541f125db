"""Loss and metrics of a SavedModel."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.qat.export import export_saved_model, load_compiled_model

import small_models as models

pytestmark = pytest.mark.slow


@tf_keras.saving.register_keras_serializable("test_export")
class _Reshape(tf_keras.layers.Layer):  # type: ignore[misc]
    def call(self, features: Mapping[str, Any]) -> dict[str, Any]:
        return {"x": tf.reshape(features["x"], [-1, 3])}


class ShiftedError(tf_keras.metrics.MeanAbsoluteError):  # type: ignore[misc]
    """A metric of the user's, in a module that can be imported."""


def _saved(directory: Path, **compiled: Any) -> tf_keras.Model:
    model = models.dense()
    model.compile(**compiled)
    export_saved_model(
        model,
        directory,
        transform=_Reshape(),
        raw_feature_spec={"x": tf.io.FixedLenFeature([3], tf.float32)},
        serving_features=frozenset({"x"}),
        output_names=("y",),
    )
    return model


def test_loss_and_metrics_come_back_with_a_saved_model(tmp_path: Path) -> None:
    metrics = ["mae", ShiftedError(name="mine"), tf_keras.metrics.RootMeanSquaredError(name="root")]
    model = _saved(tmp_path / "m", optimizer="adam", loss=tf_keras.losses.Huber(delta=0.5), metrics=metrics)
    loaded = load_compiled_model(tmp_path / "m")
    x, y = np.ones((4, 3), "f"), np.arange(8.0).reshape(4, 2)
    expected = model.evaluate(x, y, return_dict=True, verbose=0)
    assert set(expected) == {"loss", "mae", "mine", "root"}
    assert loaded.evaluate(x, y, return_dict=True, verbose=0) == pytest.approx(expected)
    kept = json.loads((tmp_path / "m" / "assets.extra" / "compile_config.json").read_text())
    assert set(kept) == {"loss", "loss_weights", "metrics", "weighted_metrics"}


def test_a_model_is_not_compiled_when_its_loss_cannot_be_restored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _saved(tmp_path / "m", optimizer="adam", loss=lambda labels, scores: tf.reduce_mean(labels - scores))
    with caplog.at_level(logging.INFO):
        loaded = load_compiled_model(tmp_path / "m")
    assert not loaded.optimizer
    assert "cannot be restored" in caplog.text


def test_loss_and_metrics_are_those_that_keras_kept_when_another_saved_the_model(tmp_path: Path) -> None:
    model = models.dense()
    model.compile("adam", "mse", metrics=["mae"])
    model.save(tmp_path / "m", save_format="tf")
    x, y = np.ones((4, 3), "f"), np.zeros((4, 2), "f")
    expected = model.evaluate(x, y, return_dict=True, verbose=0)
    assert load_compiled_model(tmp_path / "m").evaluate(x, y, return_dict=True, verbose=0) == pytest.approx(expected)


def test_load_raises_when_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded by tf_keras"):
        load_compiled_model(tmp_path)
