"""An LSTM's output, state and hidden values have one scale, whatever those behind it want."""

from typing import Any

import numpy as np
import pytest
import tf_keras

from components.quantization import audit, convert
from components.quantization.conversion import flatbuffer, lstm_scales
from components.quantization.interpreter import IntegerModel

import audit_changes as changes
import audited_models as models

K = tf_keras.layers


def _operands(tflite: bytes) -> tuple[list[str], list[Any]]:
    """The ops, and state, hidden values and output of the LSTM."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    (lstm,) = (op for op in graph.ops if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM")
    indices = (lstm.operands[18], lstm.intermediates[-1], lstm.outputs[0])
    return [op.code for op in graph.ops], [graph.tensors[index] for index in indices]


def test_unified_changes_nothing_when_there_is_one_scale() -> None:
    tflite = models.lstm()
    assert lstm_scales.unified(tflite) == (tflite, 0)


def test_unified_requantizes_the_output_when_it_has_another_scale() -> None:
    tflite, changed = lstm_scales.unified(models.lstm(changes.requantized("y", 0.5, 3)))
    ops, tensors = _operands(tflite)
    assert changed == 1
    assert ops == ["UNIDIRECTIONAL_SEQUENCE_LSTM", "QUANTIZE"]
    assert len({(tensor.scale, tensor.zero_point) for tensor in tensors}) == 1
    graph = flatbuffer.read_subgraphs(tflite)[0]
    (output,) = (graph.tensors[index] for index in graph.outputs)
    assert (output.name, output.scale, output.zero_point) == ("y", (0.5,), (3,))
    assert audit(tflite).offenders == ()


def test_unified_gives_the_state_the_scale_of_hidden_values_when_only_these_differ() -> None:
    tflite, changed = lstm_scales.unified(models.lstm(changes.requantized("hidden", 0.25, 5)))
    _, (state, hidden, _) = _operands(tflite)
    assert changed == 1
    assert (state.scale, state.zero_point) == (hidden.scale, hidden.zero_point) == ((0.25,), (5,))


@pytest.mark.slow
def test_convert_computes_an_lstm_as_exactly_when_its_output_is_concatenated() -> None:
    tf_keras.utils.set_random_seed(1)
    series = tf_keras.Input((12, 5), name="series")
    both = K.Concatenate(name="both")([K.LSTM(16, name="lstm")(series), K.Flatten()(series)])
    model = tf_keras.Model(series, both)
    examples = np.random.default_rng(1).normal(size=(32, 12, 5)).astype(np.float32) * 2
    tflite = convert(model, representative_dataset=[examples], profile="cpu")
    found = IntegerModel(tflite).predict({"series": examples})["both"][:, :16]
    expected = model.predict(examples, verbose=0)[:, :16]
    assert np.abs(found - expected).max() < 0.1  # by the concatenation's scale 0.06; without, off by a half and more


@pytest.mark.slow
def test_convert_gives_the_same_bytes_each_time_when_an_lstm_stays_one_op() -> None:
    series = tf_keras.Input((6, 3), name="series")
    model = tf_keras.Model(series, K.Dense(2)(K.LSTM(8)(series)))
    examples = np.random.default_rng(1).normal(size=(4, 6, 3)).astype(np.float32)
    assert len({convert(model, representative_dataset=[examples], profile="cpu") for _ in range(2)}) == 1


def test_convert_refuses_an_lstm_with_float16_weights_when_it_is_one_op() -> None:
    series = tf_keras.Input((6, 3), name="series")
    with pytest.raises(ValueError, match="scheme 'float16': TensorFlow's converter cannot convert an LSTM as one op"):
        convert(tf_keras.Model(series, K.LSTM(2)(series)), "float16", profile="cpu")
