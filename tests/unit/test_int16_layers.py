"""Single layers of 16 bits in models of 8."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import audit, convert, parity, plan, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.interpreter import IntegerModel
from components.quantization.schemes import QuantizationScheme

pytestmark = pytest.mark.long

K = tf_keras.layers
_ALL = "stem|middle|up|last"


def _images() -> tf_keras.Model:
    x = inputs = tf_keras.Input((8, 8, 3), name="image")
    x = K.ReLU()(K.BatchNormalization()(K.Conv2D(6, 3, padding="same", name="stem")(x)))
    x = K.Add()([x, K.Conv2D(6, 3, padding="same", name="middle")(x)])
    x = K.DepthwiseConv2D(3, name="middle_depthwise")(x)
    x = K.Conv2DTranspose(4, 2, strides=2, name="up")(K.MaxPooling2D()(x))
    return tf_keras.Model(inputs, K.Dense(3, name="last")(K.Dropout(0.5)(K.Flatten()(x))))


def _series() -> tf_keras.Model:
    x = inputs = tf_keras.Input((12, 4), name="series")
    x = K.Conv1D(8, 3, padding="same", activation="relu", name="stem")(x)
    x = K.Conv1D(8, 3, padding="same", activation="relu", name="middle")(x)
    return tf_keras.Model(inputs, K.Dense(3, "softmax", name="last")(K.GlobalAveragePooling1D()(x)))


def _vectors() -> tf_keras.Model:
    x = inputs = tf_keras.Input((16,), name="vector")
    return tf_keras.Model(inputs, K.Dense(4, name="last")(K.Dense(16, "relu", name="stem")(x)))


def _scheme(pattern: str) -> QuantizationScheme:
    return QuantizationScheme(name="mixed", overrides=((pattern, "int16_activations"),))


def _trained(model: tf_keras.Model, scheme: QuantizationScheme | str) -> tuple[tf_keras.Model, np.ndarray]:
    """The quantized model, its ranges found, and the examples that they were found with."""
    examples = np.random.default_rng(3).normal(size=(16, *model.input_shape[1:])).astype(np.float32)
    model(examples, training=True)
    quantized = quantize_model(model, scheme)
    quantized.compile(tf_keras.optimizers.legacy.SGD(0.0), "mse", run_eagerly=True)
    zeros = tf.nest.map_structure(lambda value: np.zeros(value.shape, np.float32), model(examples))
    quantized.train_on_batch(examples, zeros)
    return quantized, examples


def _ops(tflite: bytes) -> list[tuple[str, str, str]]:
    """Name of each op, and the types of its data and result."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    data = {"TRANSPOSE_CONV": 2}
    types = [tensor.dtype for tensor in graph.tensors]
    return [(op.code, types[op.inputs[data.get(op.code, 0)]], types[op.outputs[0]]) for op in graph.ops]


def _sqnr_db(signal: Any, noisy: Any) -> float:
    noise = float(np.sum(np.square(np.subtract(signal, noisy))))
    return 10.0 * math.log10(float(np.sum(np.square(signal))) / noise) if noise else math.inf


def test_weights_beside_16_bits_stay_in_8_when_they_lie_on_the_grid_of_4_by_chance() -> None:
    scheme = QuantizationScheme(name="mixed", weight_bits=4, overrides=(("^stem$", "int16_activations"),))
    model = _vectors()
    model.get_layer("stem").kernel.assign(np.where(np.arange(256).reshape(16, 16) % 3, 0.5, -0.5))
    quantized, _ = _trained(model, scheme)
    tflite = convert(quantized, scheme, profile="cpu")
    graph = flatbuffer.read_subgraphs(tflite)[0]
    dense = [[graph.tensors[i].dtype for i in op.inputs[:2]] for op in graph.ops if op.code == "FULLY_CONNECTED"]
    assert dense == [["INT16", "INT8"], ["INT8", "INT4"]]


def test_first_and_last_layer_compute_in_16_bits_when_they_are_overridden() -> None:
    scheme = _scheme("^(stem|last)$")
    quantized, _ = _trained(_images(), scheme)
    tflite = convert(quantized, scheme, profile="cpu")
    assert audit(tflite, "cpu").integer_only
    assert _ops(tflite) == [
        ("CONV_2D", "INT16", "INT16"),
        ("QUANTIZE", "INT16", "INT8"),
        ("CONV_2D", "INT8", "INT8"),
        ("ADD", "INT8", "INT8"),
        ("DEPTHWISE_CONV_2D", "INT8", "INT8"),
        ("MAX_POOL_2D", "INT8", "INT8"),
        ("TRANSPOSE_CONV", "INT8", "INT8"),
        ("RESHAPE", "INT8", "INT8"),
        ("CAST", "INT8", "INT32"),
        ("QUANTIZE", "INT32", "INT16"),
        ("FULLY_CONNECTED", "INT16", "INT16"),
    ]
    graph = flatbuffer.read_subgraphs(tflite)[0]
    assert [graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)] == ["INT16", "INT16"]
    weights = [graph.tensors[op.inputs[1]].dtype for op in graph.ops if op.code in ("CONV_2D", "FULLY_CONNECTED")]
    assert weights == ["INT8"] * 3


@pytest.mark.parametrize("kernels", ["optimized", "reference"])
@pytest.mark.parametrize(
    ("build", "pattern"), [(_images, "^(stem|last)$"), (_images, _ALL), (_images, "^middle$"), (_series, "stem|last")]
)
def test_integers_are_those_of_training_when_some_layers_have_16_bits(build: Any, pattern: str, kernels: Any) -> None:
    scheme = _scheme(pattern)
    quantized, examples = _trained(build(), scheme)
    found = parity(quantized, convert(quantized, scheme, profile="cpu"), [examples], kernels)
    assert not found.unmatched
    assert found.first_over(3.0) is None, str(found)
    assert {tensor.bits for tensor in found.tensors} == {8, 16}
    # Before the first op of 8 bits, differences are those of 16-bit arithmetic.
    first = next(index for index, tensor in enumerate(found.tensors) if tensor.bits == 8)
    assert all(tensor.max_lsb <= 2.0 for tensor in found.tensors[:first]), str(found)


def test_results_are_finer_when_all_layers_have_16_bits() -> None:
    scheme = _scheme("stem|last")
    model = _vectors()
    wide, examples = _trained(model, scheme)
    narrow, _ = _trained(model, "full_int8")
    found = {}
    for name, quantized, used in (("wide", wide, scheme), ("narrow", narrow, "full_int8")):
        integer = IntegerModel(convert(quantized, used, profile="cpu"))
        found[name] = _sqnr_db(model(examples), integer.predict({"vector": examples})["last"])
    assert found["wide"] > found["narrow"] + 3.0, found


def test_scale_of_16_bits_is_that_of_the_farther_end_of_the_range() -> None:
    scheme = _scheme("stem|last")
    quantized, _ = _trained(_vectors(), scheme)
    graph = flatbuffer.read_subgraphs(convert(quantized, scheme, profile="cpu"))[0]
    layer = quantized.get_layer("vector_range")
    step = (float(layer.maximum) - float(layer.minimum)) / 255.0
    zero_point = round(-float(layer.minimum) / step)  # from 0
    farther = max(zero_point, 255 - zero_point) * step
    tensor = graph.tensors[graph.inputs[0]]
    assert tensor.scale[0] == pytest.approx(farther / 32767.0, rel=1e-6)
    assert tensor.zero_point == (0,)


def test_output_has_16_bits_when_only_its_shape_changes_behind_the_layer() -> None:
    inputs = tf_keras.Input((8, 8, 3), name="image")
    x = K.Conv2D(2, 3, name="head")(K.ReLU()(K.Conv2D(4, 3, name="body")(inputs)))
    scheme = _scheme("^head$")
    quantized, examples = _trained(tf_keras.Model(inputs, K.Reshape((-1, 2), name="boxes")(x)), scheme)
    tflite = convert(quantized, scheme, profile="cpu")
    assert _ops(tflite)[-2:] == [("CONV_2D", "INT16", "INT16"), ("RESHAPE", "INT16", "INT16")]
    found = parity(quantized, tflite, [examples])
    assert (found.tensors[-1].bits, found.first_over(3.0)) == (16, None), str(found)


def test_tensor_is_widened_once_when_several_layers_of_16_bits_take_it() -> None:
    inputs = tf_keras.Input((6,), name="x")
    x = K.Dense(5, "relu", name="body")(inputs)
    heads = [K.Dense(3, name="head_a")(x), K.Dense(2, name="head_b")(x), K.Dense(4, name="narrow")(x)]
    scheme = _scheme("^head_")
    quantized, examples = _trained(tf_keras.Model(inputs, heads), scheme)
    tflite = convert(quantized, scheme, profile="cpu")
    assert [op for op, *_ in _ops(tflite)].count("CAST") == 1
    assert parity(quantized, tflite, [examples]).first_over(3.0) is None


def test_equal_layers_of_16_bits_are_one_op() -> None:
    inputs = tf_keras.Input((6,), name="x")
    twins = [K.Dense(3, name=f"twin_{which}", kernel_initializer="ones", bias_initializer="ones") for which in "ab"]
    model = tf_keras.Model(inputs, K.Add()([twin(inputs) for twin in twins]))
    scheme = _scheme("^twin_")
    quantized, examples = _trained(model, scheme)
    tflite = convert(quantized, scheme, profile="cpu")
    assert [op for op, *_ in _ops(tflite)].count("FULLY_CONNECTED") == 1
    assert parity(quantized, tflite, [examples]).first_over(3.0) is None


def test_plan_names_layers_of_16_bits() -> None:
    reasons = {layer.name: layer.reason for layer in plan(_images(), _scheme("^(stem|last)$"), target="cpu").layers}
    assert {name for name, reason in reasons.items() if "16-bit inputs and outputs" in reason} == {"stem", "last"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("^max_pooling", "name no convolution, Dense, softmax, sigmoid or tanh"),
        ("^heat$", "no layer's name matches the overrides '.heat.'; the layers are stem, batch_normalization"),
    ],
)
def test_plan_refuses_overrides_when_they_name_nothing_of_use(pattern: str, message: str) -> None:
    tf_keras.backend.clear_session()
    with pytest.raises(ValueError, match=message):
        plan(_images(), _scheme(pattern))


def test_target_refuses_layers_of_16_bits_when_it_computes_in_8() -> None:
    with pytest.raises(ValueError, match="'edge_tpu' cannot run scheme 'mixed': got weights of 8 bits and activations"):
        plan(_images(), _scheme("^last$"), target="edge_tpu")


def test_convert_refuses_uint8_when_some_tensors_have_16_bits() -> None:
    scheme = _scheme("stem|last")
    quantized, _ = _trained(_vectors(), scheme)
    with pytest.raises(ValueError, match="io_dtype: got 'uint8', expected one of int8 with scheme 'mixed'"):
        convert(quantized, scheme, profile="cpu", io_dtype="uint8")


def test_convert_refuses_layers_of_16_bits_when_they_were_not_trained_so() -> None:
    scheme = _scheme("stem|last")
    with pytest.raises(ValueError, match="overrides the width of some layers, which training decides, got a float"):
        convert(_vectors(), scheme, [np.ones((2, 16), np.float32)], profile="cpu")
    narrow, _ = _trained(_vectors(), "full_int8")
    with pytest.raises(ValueError, match="no layer was trained with 16 bits; train with this scheme"):
        convert(narrow, scheme, profile="cpu")


def test_convert_refuses_a_model_when_a_layer_of_16_bits_has_no_range() -> None:
    scheme = _scheme("stem|last")
    with pytest.raises(ValueError, match="no range was ever trained for: last, stem_relu_range, vector_range"):
        convert(quantize_model(_vectors(), scheme), scheme, profile="cpu")
