"""What each scheme makes of a model."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from sklearn.datasets import load_digits

from components.quantization import audit, convert
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import NotIntegerOnlyError
from components.quantization.conversion.profiles import load_profile
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.schemes import QuantizationScheme

import fake_quantized_models

pytestmark = pytest.mark.slow

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def _digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).reshape(-1, 8, 8, 1).astype(np.float32), labels


@pytest.fixture(scope="module")
def weights() -> list[np.ndarray]:
    """Weights of the convolutional model, trained on digits with 8-bit activations."""
    tf_keras.utils.set_random_seed(1)
    model = fake_quantized_models.convolutional()
    model.compile(tf_keras.optimizers.legacy.Adam(5e-3), "sparse_categorical_crossentropy")
    images, labels = _digits()
    model.fit(images[:1200], labels[:1200], epochs=8, verbose=0)
    trained: list[np.ndarray] = model.get_weights()
    return trained


def _model(weights: list[np.ndarray], bits: int, activation_bits: int = 8, **bits_of: int) -> tf_keras.Model:
    model = fake_quantized_models.convolutional(bits, activation_bits)
    model.set_weights(weights)
    fake_quantized_models.put_on_grid(model, bits, **bits_of)
    return fake_quantized_models.observe(model, _digits()[0][:300])


def _float_model(weights: list[np.ndarray]) -> tf_keras.Model:
    """The model without fake quantization."""
    model = _model(weights, 16)
    x = inputs = tf_keras.Input((8, 8, 1), name="image")
    for layer in model.layers[1:]:
        x = x if isinstance(layer, FakeQuantize) else layer(x)
    return tf_keras.Model(inputs, x)


def _predictions(tflite: bytes, images: np.ndarray) -> np.ndarray:
    """Real outputs, one image at a time, with the default kernels of this CPU."""
    interpreter = tf.lite.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        scale, zero_point = source["quantization"]
        limits = np.iinfo(source["dtype"]) if scale else None
        values = np.clip(np.rint(image / scale) + zero_point, limits.min, limits.max) if limits else image
        interpreter.set_tensor(source["index"], values[None].astype(source["dtype"]))
        interpreter.invoke()
        scale, zero_point = result["quantization"]
        integers = interpreter.get_tensor(result["index"]).astype(np.float64)
        found.append((integers - zero_point) * scale if scale else integers)
    return np.concatenate(found)


def _assert_as_accurate(tflite: bytes, model: tf_keras.Model, atol: float) -> None:
    images, labels = (values[1200:1500] for values in _digits())
    got, expected = _predictions(tflite, images), model.predict(images, verbose=0)
    accuracy, reference = (float(np.mean(np.argmax(values, -1) == labels)) for values in (got, expected))
    assert reference > 0.85
    assert accuracy >= reference - 0.01
    assert float(np.mean(np.abs(got - expected))) < atol


def _weights_of(tflite: bytes) -> dict[str, flatbuffer.Tensor]:
    graph = flatbuffer.read_subgraphs(tflite)[0]
    return {op.code: graph.tensors[op.inputs[1]] for op in graph.ops if op.code in _WEIGHTED}


def test_int4_weights_are_packed_and_as_accurate_as_in_training(weights: list[np.ndarray]) -> None:
    model = _model(weights, 4)
    tflite = convert(model, "int4_weights", profile="cpu")
    assert audit(tflite, profile="cpu").offenders == ()
    assert {code: tensor.dtype for code, tensor in _weights_of(tflite).items()} == dict.fromkeys(_WEIGHTED, "INT4")
    _assert_as_accurate(tflite, model, atol=2e-3)


def test_int4_weights_are_those_of_training_exactly(weights: list[np.ndarray]) -> None:
    model = _model(weights, 4)
    found = _weights_of(convert(model, "int4_weights", profile="cpu"))
    for name, code, stored in (
        ("conv", "CONV_2D", (3, 0, 1, 2)),
        ("depthwise", "DEPTHWISE_CONV_2D", (3, 0, 1, 2)),
        ("dense", "FULLY_CONNECTED", (1, 0)),
    ):
        scale = fake_quantized_models.kernel_scale(model.get_layer(name), 7)
        integers = np.rint(model.get_layer(name).get_weights()[0] / scale)
        np.testing.assert_array_equal(found[code].values, integers.transpose(stored))
        np.testing.assert_allclose(found[code].scale, scale.ravel(), rtol=1e-6)


def test_int4_weights_stay_in_8_bits_where_training_had_8(weights: list[np.ndarray]) -> None:
    scheme = QuantizationScheme(name="mixed", weight_bits=4, overrides=(("^conv$|^dense$", "int8_weights"),))
    model = _model(weights, 4, conv=8, dense=8)
    tflite = convert(model, scheme, profile="cpu")
    dtypes = {code: tensor.dtype for code, tensor in _weights_of(tflite).items()}
    assert dtypes == {"CONV_2D": "INT8", "DEPTHWISE_CONV_2D": "INT4", "FULLY_CONNECTED": "INT8"}
    _assert_as_accurate(tflite, model, atol=2e-3)


def test_int4_weights_name_the_version_that_reads_them(weights: list[np.ndarray]) -> None:
    tflite = convert(_model(weights, 4), "int4_weights", profile="cpu")
    versions = {op.code: op.version for op in flatbuffer.read_subgraphs(tflite)[0].ops if op.code in _WEIGHTED}
    assert versions == {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10}
    assert b"2.11.0" in tflite


def test_int4_weights_are_refused_when_training_had_8_bits(weights: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no weights of the model are on a 4-bit grid"):
        convert(_model(weights, 8), "int4_weights", profile="cpu")


def test_int4_weights_are_rounded_when_the_model_is_float(weights: list[np.ndarray]) -> None:
    images = _digits()[0][:100]
    tflite = convert(_float_model(weights), "int4_weights", [images], profile="cpu")
    assert {tensor.dtype for tensor in _weights_of(tflite).values()} == {"INT4"}
    _assert_as_accurate(tflite, _model(weights, 4), atol=2e-2)


def test_int4_weights_are_an_offender_when_the_target_cannot_read_them(weights: list[np.ndarray]) -> None:
    tflite = convert(_model(weights, 4), "int4_weights", profile="cpu")
    offenders = audit(tflite, profile="edge_tpu").offenders
    reasons = {offender.reason for offender in offenders if offender.rule != "op-version"}
    assert reasons == {"has 4-bit values, which edge_tpu cannot read"}


def test_convert_refuses_a_float_model_when_the_scheme_overrides_widths(weights: list[np.ndarray]) -> None:
    scheme = QuantizationScheme(name="mixed", weight_bits=4, overrides=(("^conv$", "int8_weights"),))
    with pytest.raises(ValueError, match="scheme 'mixed' overrides the width of some layers, which training decides"):
        convert(_float_model(weights), scheme, [_digits()[0][:10]], profile="cpu")


def test_int16x8_keeps_trained_weights_and_calibrates_activations(weights: list[np.ndarray]) -> None:
    model = _model(weights, 8, activation_bits=16)
    tflite = convert(model, "int16x8", [_digits()[0][:300]], profile="cpu")
    assert audit(tflite, profile="cpu").offenders == ()
    graph = flatbuffer.read_subgraphs(tflite)[0]
    assert {graph.tensors[op.outputs[0]].dtype for op in graph.ops} == {"INT16"}
    for name, code in (("conv", "CONV_2D"), ("depthwise", "DEPTHWISE_CONV_2D"), ("dense", "FULLY_CONNECTED")):
        scale = fake_quantized_models.kernel_scale(model.get_layer(name), 127)
        np.testing.assert_allclose(_weights_of(tflite)[code].scale, scale.ravel(), rtol=1e-6)
    _assert_as_accurate(tflite, model, atol=2e-3)


def test_int16x8_is_refused_when_the_model_was_never_trained() -> None:
    model = fake_quantized_models.convolutional(8, 16)
    names = "dense_range, depthwise_range, image_range, relu_range"
    with pytest.raises(ValueError, match=f"no range was ever trained for: {names}; fine-tune the quantized model"):
        convert(model, "int16x8", [_digits()[0][:10]], profile="cpu")


def test_int16x8_is_converted_when_the_values_of_weights_are_all_zero() -> None:
    model = fake_quantized_models.convolutional(8, 16)
    for layer in model.layers:
        if isinstance(layer, FakeQuantize) and layer.fixed is None:
            layer.set_range(-1.0, 1.0)
    model.get_layer("depthwise").depthwise_kernel.assign(np.zeros((3, 3, 9, 1)))
    assert audit(convert(model, "int16x8", [_digits()[0][:10]], profile="cpu")).integer_only


def test_convert_refuses_one_scale_per_tensor_when_training_had_one_per_channel(weights: list[np.ndarray]) -> None:
    with pytest.raises(NotIntegerOnlyError, match="convert the model with the scheme that it was trained") as raised:
        convert(_model(weights, 8), "full_int8_per_tensor", profile="cpu")
    assert {(offender.op, offender.rule) for offender in raised.value.audit.offenders} == {
        ("CONV_2D", "scheme-scales"),
        ("DEPTHWISE_CONV_2D", "scheme-scales"),
    }


@pytest.mark.parametrize(("scheme", "dtype", "atol"), [("dynamic_range", "INT8", 2e-2), ("float16", "FLOAT16", 1e-3)])
def test_baseline_is_converted_without_claim_to_be_integer_only(scheme: str, dtype: str, atol: float) -> None:
    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    # The converter leaves weights of fewer than 1024 elements as they are.
    stack = [layers.InputLayer((8, 8, 1), name="image"), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10)]
    model = tf_keras.Sequential([*stack, layers.Softmax()])
    tflite = convert(model, scheme, profile="cpu")
    assert not audit(tflite).integer_only
    assert dtype in {tensor.dtype for tensor in flatbuffer.read_subgraphs(tflite)[0].tensors}
    images = _digits()[0][:20]
    np.testing.assert_allclose(_predictions(tflite, images), model.predict(images, verbose=0), atol=atol)


def test_baseline_refuses_a_model_when_it_has_fake_quantization(weights: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="scheme 'float16' quantizes float models, got one with fake quantization"):
        convert(_model(weights, 8), "float16", profile="cpu")


def test_baseline_is_refused_only_for_the_rules_of_its_target(weights: list[np.ndarray]) -> None:
    profile = dataclasses.replace(load_profile("edge_tpu"), activation_types=("INT8", "FLOAT32"), name="float_unit")
    tflite = convert(_float_model(weights), "dynamic_range", profile=profile)
    assert all(offender.kind == "integer" for offender in audit(tflite, profile).offenders)
