from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import audit, convert, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import NotIntegerOnlyError
from components.quantization.conversion.checks import require_runnable
from components.quantization.interpreter import IntegerModel
from components.quantization.qat.fake_quantization import FakeQuantize

import fake_quantized_models
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
        ([np.full((2, 3), np.inf)], "input 'x' has values that are infinite or not numbers; mend or drop them"),
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
    with pytest.raises(ValueError, match=r"input 'x' has unknown dimensions, \(N, 3\); pass input_shapes="):
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
        ({"scheme": "int7"}, "unknown scheme 'int7': there are dynamic_range, float16, full_int8, full_int8_p"),
        ({"profile": "abacus"}, "unknown target 'abacus'"),
        ({"io_dtype": "int16"}, "expected one of int8, uint8 with scheme 'full_int8'"),
        ({"io_dtype": {"y": "int16"}}, "expected one of int8, uint8 with scheme 'full_int8'"),
        ({"io_dtype": {"z": "uint8"}}, "got types for z, expected inputs or outputs of the model: x, y"),
        ({"scheme": "int16x8"}, "target 'edge_tpu' cannot run scheme 'int16x8'"),
        ({"scheme": "int16x8", "profile": "cpu"}, "16-bit activations, whose ranges are calibrated: pass a repre"),
        ({"scheme": "float16", "profile": "cpu", "io_dtype": "int8"}, "expected one of float32 with scheme 'float16'"),
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


@pytest.mark.parametrize("layer", ["Flatten", "LSTM"])  # two ways through the converter
def test_convert_keeps_names_when_python_has_no_such_arguments(layer: str) -> None:
    inputs = [tf_keras.Input((4, 2), name=name) for name in ("my-image", "self", "input_0", "a/b.c")]
    first = tf_keras.layers.LSTM(8) if layer == "LSTM" else tf_keras.layers.Flatten()
    parts = [first(inputs[0]), *(tf_keras.layers.Flatten()(x) for x in inputs[1:])]
    outputs = tf_keras.layers.Concatenate(name="the-output")(parts)
    examples = {x.name: np.full((1, 4, 2), n + 1, np.float32) for n, x in enumerate(inputs)}
    tflite = convert(tf_keras.Model(inputs, outputs), representative_dataset=[examples], profile="cpu")
    (found,) = IntegerModel(tflite).predict(examples).values()
    np.testing.assert_allclose(found[0, 8:], np.repeat([2.0, 3.0, 4.0], 8), atol=0.02)
    names = {tensor.name for tensor in _edges(tflite)}
    assert names == {"my-image", "self", "input_0", "a/b.c", "the-output"}


def test_convert_raises_in_one_sentence_when_the_converter_refuses_an_op() -> None:
    inputs = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(inputs, tf_keras.layers.Activation(tf.math.erf, name="erf")(inputs))
    with pytest.raises(ValueError, match="TensorFlow's converter refuses the model: 'tf.Erf' op is neither") as caught:
        convert(model, representative_dataset=[np.ones((2, 4))])
    assert str(caught.value).endswith("/erf/Erf); replace what is named, or cut the model before it")
    assert "traceback_utils.py" not in str(caught.value)


def test_model_is_refused_when_no_kernel_runs_it() -> None:
    inputs = tf_keras.Input((4,), name="x")
    dense = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="dense")(inputs))
    model = flatbuffer.read_object(convert(dense, representative_dataset=[np.ones((2, 4), np.float32)]))
    model.operatorCodes[0].version = 99
    with pytest.raises(ValueError, match=r"cannot be run by TFLite: .*FULLY_CONNECTED.* version '99'.*; replace that"):
        require_runnable(flatbuffer.write_object(model))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_convert_names_the_layers_when_their_numbers_are_not_finite(value: float, tmp_path: Path) -> None:
    model = fake_quantized_models.observe(fake_quantized_models.convolutional(), models.images(5))
    model.get_layer("relu_range").maximum.assign(value)
    kernel, bias = model.get_layer("dense").get_weights()
    kernel[0, 0] = value
    model.get_layer("dense").set_weights([kernel, bias])
    model.save(tmp_path / "saved", save_format="tf")
    for broken in (model, tmp_path / "saved"):
        with pytest.raises(ValueError, match="weights or ranges are not finite in: dense, relu_range; look for"):
            convert(broken)


def _partly_ranged() -> tf_keras.Model:
    """Ranges are known in front of and behind a square, whose own is not."""
    layers = tf_keras.layers
    image = tf_keras.Input((8, 8, 1), name="image")
    x = FakeQuantize(name="before")(image)
    x = FakeQuantize(name="between")(layers.ReLU(name="relu")(layers.Conv2D(4, 3, name="first")(x)))
    x = layers.Multiply(name="square")([x, x])
    x = FakeQuantize(name="after")(layers.Conv2D(2, 3, name="second")(x))
    return tf_keras.Model(image, x)


def _scales(tflite: bytes) -> dict[str, list[tuple[float, int]]]:
    """Scale and zero point of the outputs of the ops, by op."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    found: dict[str, list[tuple[float, int]]] = {}
    for op in graph.ops:
        tensor = graph.tensors[op.outputs[0]]
        found.setdefault(op.code, []).append((tensor.scale[0], tensor.zero_point[0]))
    return found


def test_convert_calibrates_only_what_has_no_trained_range() -> None:
    model = fake_quantized_models.observe(_partly_ranged(), models.images(20))
    model.get_layer("between").set_range(0.0, 2.55)
    model.get_layer("after").set_range(-1.27, 1.28)
    dim, bright = (_scales(convert(model, representative_dataset=[models.images(20) * gain])) for gain in (0.5, 1.0))
    # (2.55 - 0) / 255 with zero point -128, and (1.28 + 1.27) / 255 with -128 + 127.
    for scales in (dim, bright):
        assert scales["CONV_2D"] == [(pytest.approx(0.01, rel=1e-6), -128), (pytest.approx(0.01, rel=1e-6), -1)]
    assert dim["MUL"][0][0] < bright["MUL"][0][0]


def test_convert_names_the_remedy_when_ranges_are_missing_and_there_is_no_dataset() -> None:
    model = fake_quantized_models.observe(_partly_ranged(), models.images(20))
    with pytest.raises(NotIntegerOnlyError, match="pass a representative_dataset to calibrate what has no trained"):
        convert(model)


def test_convert_ignores_the_dataset_when_all_ranges_are_known() -> None:
    model = fake_quantized_models.observe(fake_quantized_models.convolutional(), models.images(20))
    tflite = convert(model)
    assert tflite == convert(model, representative_dataset=[models.images(20)])
    assert tflite == convert(model, representative_dataset=[models.images(3) * 100])


def test_convert_keeps_weights_exactly_when_they_are_on_their_grid() -> None:
    model = fake_quantized_models.observe(fake_quantized_models.convolutional(), models.images(20))
    graph = flatbuffer.read_subgraphs(convert(model, profile="cpu"))[0]
    weights = {op.code: graph.tensors[op.inputs[1]] for op in graph.ops if op.code != "RESHAPE" and len(op.inputs) > 1}
    for name, code in (("conv", "CONV_2D"), ("depthwise", "DEPTHWISE_CONV_2D"), ("dense", "FULLY_CONNECTED")):
        kernel = model.get_layer(name).get_weights()[0]
        scale = fake_quantized_models.kernel_scale(model.get_layer(name), 127)
        integers = np.rint(kernel / scale).astype(np.int8)
        # TFLite keeps output channels first, Keras last (and the multiplier of depthwise convolutions behind them).
        stored = {"conv": (3, 0, 1, 2), "depthwise": (3, 0, 1, 2), "dense": (1, 0)}[name]
        np.testing.assert_array_equal(weights[code].values, integers.transpose(stored))
        np.testing.assert_allclose(weights[code].scale, scale.ravel(), rtol=1e-6)


def test_convert_names_the_layers_when_their_ranges_were_never_observed(tmp_path: Path) -> None:
    model = fake_quantized_models.convolutional()
    model.get_layer("relu_range").set_range(0.0, 1.0)
    model.save(tmp_path / "saved", save_format="tf")
    named = "no range was ever trained for: dense_range, depthwise_range, image_range; fine-tune the quantized model"
    for untrained in (model, tmp_path / "saved"):
        with pytest.raises(ValueError, match=named):
            convert(untrained)


@pytest.mark.parametrize(("layer", "named"), [("GRU", "gru"), ("SimpleRNN", "recurrent/while")])
def test_convert_raises_when_calibration_would_meet_a_loop(layer: str, named: str) -> None:
    inputs = tf_keras.Input((8, 3), name="x")
    model = tf_keras.Model(inputs, getattr(tf_keras.layers, layer)(4, name="recurrent")(inputs))
    with pytest.raises(ValueError, match=rf"the model loops in \S*{named}, where ranges cannot be calibrated; unroll"):
        convert(model, representative_dataset=[np.ones((2, 8, 3))])


def test_convert_takes_infinite_constants_when_nothing_computed_is_infinite() -> None:
    inputs = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(inputs, tf.maximum(tf_keras.layers.ReLU()(inputs), -np.inf))
    examples = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
    tflite = convert(model, representative_dataset=[examples], profile="cpu")
    (found,) = IntegerModel(tflite).predict({"x": examples}).values()
    np.testing.assert_allclose(found, examples, atol=1 / 255)


def test_convert_names_what_computes_infinities_from_the_representative_dataset() -> None:
    inputs = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(tf.math.log(tf_keras.layers.ReLU()(inputs))))
    examples = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, -2.0, 3.0, 4.0]], np.float32)
    assert audit(convert(model, representative_dataset=[examples[:1]], profile="cpu")).integer_only
    with pytest.raises(ValueError, match=r"tf.math.log.*compute what is infinite or no number, which has no range"):
        convert(model, representative_dataset=iter([examples]), profile="cpu")
