import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization import audit, convert
from components.quantization.conversion import flatbuffer

import small_models as models

pytestmark = pytest.mark.slow


def _float_io(*, full: bool) -> bytes:
    """Converts as users do by hand: weights only, or weights and activations, with float inputs."""
    converter = tf.lite.TFLiteConverter.from_keras_model(models.convolutional())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if full:
        converter.representative_dataset = lambda: ([image[None]] for image in models.images(10))
    converted: bytes = converter.convert()
    return converted


def test_audit_names_every_op_when_the_model_is_float() -> None:
    tflite = tf.lite.TFLiteConverter.from_keras_model(models.dense()).convert()
    found = audit(tflite)
    assert not found.integer_only
    assert {offender.op for offender in found.offenders} == {"input", "output", "FULLY_CONNECTED"}


def test_audit_refuses_hybrid_ops_when_only_weights_are_quantized() -> None:
    found = audit(_float_io(full=False))
    assert not found.integer_only
    assert {"CONV_2D", "SOFTMAX"} <= {offender.op for offender in found.offenders}


def test_audit_names_the_edges_when_only_inputs_and_outputs_are_float() -> None:
    found = audit(_float_io(full=True))
    floats = {offender.op for offender in found.offenders if offender.kind == "integer"}
    assert floats == {"input", "output", "QUANTIZE", "DEQUANTIZE"}
    assert "turns integers into floats" in str(found)


def test_audit_finds_nothing_when_the_model_is_integer_only() -> None:
    tflite = convert(models.convolutional(), representative_dataset=[models.images(10)])
    found = audit(tflite, profile="edge_tpu")
    assert found.integer_only
    assert found.offenders == ()
    assert found.ops == len(flatbuffer.read_subgraphs(tflite)[0].ops)


def test_audit_finds_per_channel_dense_when_the_profile_forbids_it() -> None:
    model = schema.ModelT.InitFromObj(
        schema.Model.GetRootAs(convert(models.dense(5), representative_dataset=[[[0.0, 0.5, 1.0]]]), 0)
    )
    graph = model.subgraphs[0]
    weights = graph.tensors[graph.operators[0].inputs[1]].quantization
    weights.scale, weights.zeroPoint = [0.1] * 5, [0] * 5
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    tflite = bytes(builder.Output())
    found = audit(tflite, profile="edge_tpu")
    assert found.integer_only
    assert [offender.reason for offender in found.offenders] == ["5 scales, edge_tpu takes one per Dense layer"]


def test_audit_knows_the_scales_of_an_lstm_as_its_kernel_does() -> None:
    bias = tf_keras.initializers.RandomNormal(seed=1)
    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.InputLayer((6, 4)), layers.LSTM(5, bias_initializer=bias)])
    tflite = convert(model, representative_dataset=[np.linspace(-1, 1, 240, dtype=np.float32).reshape(10, 6, 4)])
    assert audit(tflite).ready
    (graph,) = flatbuffer.read_subgraphs(tflite)
    (op,) = (op for op in graph.ops if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM")
    biases = [graph.tensors[op.operands[gate]] for gate in range(12, 16)]
    # The scale that the rule asks for is the one by which integers are the biases that Keras has.
    trained = np.split(model.layers[-1].get_weights()[2], 4)
    for gate, expected in zip(biases, trained, strict=True):
        assert gate.values is not None
        np.testing.assert_allclose(gate.values * gate.scale[0], expected, atol=gate.scale[0] * 0.51)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x1c\x00\x00\x00TFL3", b"\xff" * 4 + b"TFL3" + b"\xff" * 64])
def test_audit_raises_value_error_when_the_file_is_no_model(content: bytes) -> None:
    with pytest.raises(ValueError, match="TFLite flatbuffer"):
        audit(content)
