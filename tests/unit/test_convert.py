from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import audit, convert, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import NotIntegerOnlyError

import small_models as models

pytestmark = pytest.mark.slow


def _edges(tflite: bytes) -> list[flatbuffer.Tensor]:
    graph = flatbuffer.read_subgraphs(tflite)[0]
    return [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]


@pytest.fixture(scope="module")
def qat_model() -> tf_keras.Model:
    return models.trained_with_fake_quantization()


@pytest.mark.parametrize("io_dtype", ["int8", "uint8"])
def test_convert_makes_fixed_integer_edges_when_asked(qat_model: tf_keras.Model, io_dtype: str) -> None:
    edges = _edges(convert(qat_model, io_dtype=io_dtype))
    assert [tensor.dtype for tensor in edges] == [io_dtype.upper()] * 2
    assert [tensor.shape for tensor in edges] == [(1, 8, 8, 1), (1, 3)]
    assert not any(tensor.dynamic for tensor in edges)


def test_convert_gives_the_same_bytes_when_repeated(qat_model: tf_keras.Model) -> None:
    assert convert(qat_model) == convert(qat_model)


def test_convert_needs_no_representative_dataset_when_ranges_were_trained(qat_model: tf_keras.Model) -> None:
    assert convert(qat_model) == convert(qat_model, representative_dataset=[models.images(3) * 100])


def test_convert_names_inputs_and_outputs_as_the_model_does(qat_model: tf_keras.Model) -> None:
    interpreter = tf.lite.Interpreter(model_content=convert(qat_model))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}


def test_convert_raises_when_the_model_was_never_trained() -> None:
    with pytest.raises(ValueError, match="no range was ever trained for"):
        convert(quantize_model(models.convolutional()))


def test_convert_raises_when_a_float_model_has_no_representative_dataset() -> None:
    with pytest.raises(ValueError, match="pass a representative_dataset"):
        convert(models.dense())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "got no example"),
        ([np.zeros((2, 4))], r"input 'x' has shape \(2, 4\), expected \(batch, 3,\)"),
        ([(np.zeros((2, 3)), np.zeros(2))], "got a tuple, such as"),
        ([np.zeros((2, 3))], "the representative dataset has hardly any range in: "),
        ([{"z": np.zeros((2, 3))}], r"missing the inputs \['x'\]"),
    ],
)
def test_convert_raises_when_the_representative_dataset_is_wrong(dataset: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(models.dense(), representative_dataset=dataset)


def test_convert_calibrates_by_name_when_there_are_two_inputs() -> None:
    small, large = tf_keras.Input((4,), name="small"), tf_keras.Input((4,), name="large")
    model = tf_keras.Model([large, small], tf_keras.layers.Concatenate()([small, large]))
    dataset = [{"large": np.array([[0.0, 0, 0, 200.0]]), "small": np.array([[0.0, 0, 0, 2.0]])}]
    tflite = convert(model, representative_dataset=dataset)
    graph = flatbuffer.read_subgraphs(tflite)[0]
    # int8 has 255 steps between 0 and the maximum; both inputs of a concatenation get the scale of the larger one,
    # inside, but not at the edge of the model.
    details = tf.lite.Interpreter(model_content=tflite).get_signature_runner().get_input_details()
    assert details["large"]["quantization"][0] == pytest.approx(200 / 255, rel=1e-5)
    assert len(graph.inputs) == 2


def test_convert_raises_when_an_input_has_an_unknown_dimension() -> None:
    model = tf_keras.Sequential([tf_keras.layers.InputLayer((None, 3), name="x"), tf_keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"unknown dimension: x \(1, None, 3\)"):
        convert(model, representative_dataset=[np.zeros((1, 5, 3))])


def test_convert_raises_with_a_table_when_a_layer_stays_float() -> None:
    quantized = quantize_model(models.dense())
    quantized.compile("sgd", "mse")
    quantized.fit(np.random.default_rng(1).random((8, 3)), np.ones((8, 2)), verbose=0)
    model = tf_keras.Model(quantized.input, tf_keras.layers.Activation(tf.math.sin, name="sine")(quantized.output))
    with pytest.raises(NotIntegerOnlyError, match="is not integer-only") as raised:
        convert(model)
    assert any(offender.op == "SIN" for offender in raised.value.audit.offenders)
    assert "SIN" in str(raised.value)


def test_convert_uses_the_dense_signature_when_given_a_saved_model(tmp_path: Path) -> None:
    model = models.dense()
    model.save(tmp_path / "saved", save_format="tf")
    tflite = convert(tmp_path / "saved", representative_dataset=[{"x": [[0.0, 0.5, 1.0]]}])
    assert audit(tflite).integer_only


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "int7"}, "unknown scheme 'int7': there are full_int8, full_int8_per_tensor"),
        ({"profile": "abacus"}, "unknown target 'abacus'"),
        ({"io_dtype": "float32"}, "expected one of int8, uint8"),
        ({"model": object()}, "got builtins.object, expected a tf_keras.Model or the path of a SavedModel"),
        ({"model": "/no/model"}, "no SavedModel at /no/model"),
    ],
)
def test_convert_raises_when_an_argument_is_wrong(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(**{"model": models.dense(), **arguments})


def test_convert_gives_one_scale_per_tensor_when_the_scheme_says_so() -> None:
    tflite = convert(models.convolutional(), scheme="full_int8_per_tensor", representative_dataset=[models.images(10)])
    graph = flatbuffer.read_subgraphs(tflite)[0]
    assert {len(tensor.scale) for tensor in graph.tensors if tensor.scale} == {1}


def test_convert_raises_when_the_saved_model_takes_serialized_examples(tmp_path: Path) -> None:
    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"x": tf.strings.length(examples)}

    module = Served()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(ValueError, match="takes strings, perhaps serialized examples; export one called 'serving_d"):
        convert(tmp_path, representative_dataset=[{"examples": [b""]}])


def test_convert_raises_in_one_sentence_when_the_converter_refuses_an_op() -> None:
    inputs = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(inputs, tf_keras.layers.Activation(tf.math.erf, name="erf")(inputs))
    with pytest.raises(ValueError, match="TensorFlow's converter refuses the model: "):
        convert(model, representative_dataset=[np.ones((2, 4))])
