"""Models with recurrent layers, from training to integers: the digits, read row by row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras
from sklearn.datasets import load_digits

from components.quantization import audit, convert, plan, quantize_model
from components.quantization.autograph import leave_libraries_alone
from components.quantization.interpreter import IntegerModel

pytestmark = pytest.mark.long

K = tf_keras.layers
_TRAIN = 1400
_LAYERS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: K.LSTM(24, name="rows"),
    "GRU": lambda: K.GRU(24, name="rows"),
    "SimpleRNN": lambda: K.SimpleRNN(24, name="rows"),
    "Bidirectional": lambda: K.Bidirectional(K.LSTM(16), name="rows"),
}


@pytest.mark.parametrize("kind", _LAYERS)
def test_recurrent_model_is_as_accurate_in_integers_as_in_floats(kind: str) -> None:
    leave_libraries_alone()
    tf_keras.utils.set_random_seed(1)
    images, labels = load_digits(return_X_y=True)
    rows = (images / 16.0).reshape(-1, 8, 8).astype(np.float32)
    train, test = (rows[:_TRAIN], labels[:_TRAIN]), (rows[_TRAIN:], labels[_TRAIN:])
    inputs = tf_keras.Input((8, 8), name="rows_of_pixels")
    hidden = _LAYERS[kind]()(K.Dense(16, "relu", name="before")(inputs))
    model = tf_keras.Model(inputs, K.Dense(10, "softmax", name="digit")(hidden))
    model.compile(tf_keras.optimizers.legacy.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*train, batch_size=32, epochs=12, verbose=0)
    rest = [row.name for row in plan(model).layers if row.action == "quantize"]
    assert {"before", "digit"} <= set(rest)
    quantized = quantize_model(model)
    quantized.compile(tf_keras.optimizers.legacy.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    quantized.fit(*train, batch_size=32, epochs=2, verbose=0)
    tflite = convert(quantized, representative_dataset=[train[0][:300]], profile="cpu")
    assert audit(tflite).integer_only
    predicted = np.argmax(IntegerModel(tflite).predict({"rows_of_pixels": test[0]})["digit"], axis=-1)
    floats, trained = (np.argmax(each.predict(test[0], verbose=0), axis=-1) for each in (model, quantized))
    accuracy, *references = (float(np.mean(classes == test[1])) for classes in (predicted, floats, trained))
    assert min(references) > 0.8
    assert accuracy >= max(references) - 0.02, references
