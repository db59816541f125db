"""Large weights, kept beside the graph while that is converted, are in the file as if they had gone through it."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import convert, quantize_model
from components.quantization.conversion import flatbuffer, large_weights, run
from components.quantization.conversion.dense_function import dense_function
from components.quantization.qat.calibration import calibrate

from architecture_cases import ARCHITECTURES

_VOCABULARY = 20


def _examples(model: tf_keras.Model) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        name: random.integers(0, _VOCABULARY, (2, *spec.shape[1:])).astype(np.int32)
        if spec.dtype == "int32"
        else random.normal(size=(2, *spec.shape[1:])).astype(np.float32)
        for name, spec in zip(model.input_names, model.inputs, strict=True)
    }


def _trained(model: tf_keras.Model) -> tf_keras.Model:
    """The model with fake quantization and ranges from examples."""
    quantized = quantize_model(model)
    calibrate(quantized, [_examples(model)])
    return quantized


def _content(tflite: bytes) -> list[Any]:
    """All but the names of constants, which say less of those that go through the converter."""
    return [
        (
            op.code,
            op.version,
            [
                (tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point, bytes(tensor.constant or b""))
                for tensor in (graph.tensors[index] for index in (*op.inputs, *op.outputs))
            ],
        )
        for graph in flatbuffer.read_subgraphs(tflite)
        for op in graph.ops
    ]


def _converted(model: Any, monkeypatch: pytest.MonkeyPatch, large: int, examples: Any = None) -> bytes:
    monkeypatch.setattr(run, "freeze_aside", lambda *args: large_weights.freeze_aside(*args, large=large))
    return convert(model, representative_dataset=examples)


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_file_is_the_same_when_all_weights_are_kept_aside(
    architecture: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tf_keras.utils.set_random_seed(1)
    model = ARCHITECTURES[architecture]()
    examples = [_examples(model)]  # some layers have no ranges of training
    function = dense_function(_trained(model))
    with caplog.at_level("INFO"):
        aside = _converted(function, monkeypatch, 1, examples)
    assert "with all weights in the graph" not in caplog.text
    assert _content(aside) == _content(_converted(function, monkeypatch, 10**9, examples))


def test_freeze_aside_gives_integers_and_scales_by_hand() -> None:
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), use_bias=False)])
    model.layers[0].set_weights([np.array([[1.27, -0.02], [0.0, 0.635], [-0.64, 0.01]], np.float32)])
    _, (weights,) = large_weights.freeze_aside(dense_function(_trained(model)).concrete, per_channel=True, large=6)
    assert weights.op == "FULLY_CONNECTED"
    assert weights.codes.tolist() == [[127, 0, -64], [-2, 64, 1]]  # 0.635 is 63.5 steps of 0.01, to even
    np.testing.assert_allclose(weights.scale, [0.01], rtol=1e-6)


@pytest.mark.parametrize(
    ("channels", "filters", "groups"),
    # A divisor of both, that leaves two input channels for each group.
    [(12, 8, 4), (8, 8, 4), (9, 9, 3), (4, 9, 1), (1, 8, 1), (2, 2, 1)],
)
def test_freeze_aside_lets_a_convolution_of_groups_stand_for_one_of_none(
    channels: int, filters: int, groups: int
) -> None:
    model = tf_keras.Sequential([tf_keras.layers.Conv2D(filters, 3, input_shape=(8, 8, channels), use_bias=False)])
    definition, (weights,) = large_weights.freeze_aside(
        dense_function(_trained(model)).concrete, per_channel=True, large=1
    )
    assert (weights.groups, weights.codes.shape) == (groups, (filters, 3, 3, channels))
    (rounding,) = [node for node in definition.node if node.name == weights.node]
    (constant,) = [node for node in definition.node if node.name == rounding.input[0]]
    shape = [axis.size for axis in constant.attr["value"].tensor.tensor_shape.dim]
    assert shape == [3, 3, channels // groups, filters]


def test_freeze_aside_leaves_groups_as_they_are_when_there_are_some() -> None:
    kernel = tf.Variable(np.full((3, 3, 4, 8), 127.0, np.float32))
    function = tf.function(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"), input_signature=[tf.TensorSpec((1, 8, 8, 8))])
    _, (weights,) = large_weights.freeze_aside(function.get_concrete_function(), per_channel=True, large=1)
    assert (weights.groups, weights.codes.shape) == (1, (8, 3, 3, 4))


def test_freeze_aside_keeps_weights_in_the_graph_when_they_are_off_the_grid_or_zero() -> None:
    floats = tf_keras.Sequential([tf_keras.layers.Conv2D(4, 3, input_shape=(8, 8, 3), use_bias=False)])
    assert large_weights.freeze_aside(dense_function(floats).concrete, per_channel=True, large=1)[1] == ()
    kernel = floats.layers[0].kernel
    trained = _trained(floats)
    kernel.assign(kernel * [1.0, 1.0, 1.0, 0.0])
    dead = _trained(floats)
    assert len(large_weights.freeze_aside(dense_function(trained).concrete, per_channel=True, large=1)[1]) == 1
    assert large_weights.freeze_aside(dense_function(dead).concrete, per_channel=True, large=1)[1] == ()


def test_restored_gives_equal_weights_of_two_layers_their_own_integers() -> None:
    inputs = tf_keras.Input((4,), name="x")
    first, second = (tf_keras.layers.Dense(4, use_bias=False, name=name) for name in ("first", "second"))
    model = tf_keras.Model(inputs, [first(inputs), second(inputs)])
    matrix = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    first.set_weights([matrix])
    second.set_weights([matrix[::-1]])
    quantized = _trained(model)
    with pytest.MonkeyPatch.context() as patch:
        graph = flatbuffer.read_subgraphs(_converted(quantized, patch, large=1))[0]
    found = [np.frombuffer(graph.tensors[op.inputs[1]].constant, np.int8).reshape(4, 4) for op in graph.ops]
    expected = np.rint(matrix * 127 / 8).T
    assert sorted(array.tolist() for array in found) == sorted([expected.tolist(), expected[:, ::-1].tolist()])


def test_restored_refuses_when_the_file_computes_otherwise() -> None:
    weights = large_weights.LargeWeights(
        node="nowhere/weights", op="CONV_2D", codes=np.ones((1, 1, 1, 1), np.int8), scale=np.ones(1, np.float32)
    )
    tflite = convert(_trained(tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])))
    with pytest.raises(large_weights.NotRestoredError, match="nowhere/weights is taken by 0 ops"):
        large_weights.restored(tflite, [weights])


def test_convert_puts_all_weights_through_the_graph_when_they_cannot_be_restored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = dense_function(_trained(ARCHITECTURES["residual"]()))
    whole = _converted(model, monkeypatch, large=10**9)
    monkeypatch.setattr(large_weights, "_OPS", {"Conv2D": "DEPTHWISE_CONV_2D", "MatMul": "FULLY_CONNECTED"})
    with caplog.at_level("INFO"):
        assert _converted(model, monkeypatch, large=1) == whole
    assert "with all weights in the graph" in caplog.text


@pytest.mark.long
def test_conversion_takes_less_than_three_times_the_memory_of_25_million_parameters() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "infra.bench.conversion", "--one", "ResNet50", "ours"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    assert found["float_mib"] > 97  # 25.6 million values of 4 bytes
    assert found["peak_mib"] < 3 * found["float_mib"]
