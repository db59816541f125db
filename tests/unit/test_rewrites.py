"""Ops that a device's parser does not know, as others that compute the same integers."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.rewrites import rewrite

_RESOLVER = tf.lite.experimental.OpResolverType


def _weights(*shape: int) -> Any:
    return tf.constant(np.random.default_rng(3).normal(size=shape).astype(np.float32))


def _convolved(values: Any, *shape: int, strides: int = 1, padding: str = "SAME") -> Any:
    return tf.nn.conv2d(values, _weights(*shape), strides, padding) + _weights(shape[-1])


def _upsampled(values: Any) -> Any:
    return tf.nn.conv2d_transpose(values, _weights(3, 3, 5, 3), (1, 8, 8, 5), 2)


# A model each: the shape of its input, and its function.
_MODELS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "grouped": ((1, 6, 6, 4), lambda x: tf.nn.relu(_convolved(x, 3, 3, 2, 6, strides=2))),
    "grouped_behind_plain": ((1, 6, 6, 4), lambda x: _convolved(_convolved(x, 3, 3, 4, 4), 3, 3, 2, 8)),
    "one_channel_groups": ((1, 6, 6, 4), lambda x: tf.nn.relu6(_convolved(x, 3, 3, 1, 8, padding="VALID"))),
    "upsampled_relu": ((1, 4, 4, 3), lambda x: tf.nn.relu(_upsampled(x) + _weights(5))),
    "upsampled_relu6": ((1, 4, 4, 3), lambda x: tf.nn.relu6(_upsampled(x) * 3.0)),
    "tiled": ((1, 4, 3), lambda x: tf.tile(x, (1, 2, 3))),
    "exp": ((1, 4), tf.exp),
    "gelu": ((1, 4), tf.nn.gelu),
    "relu": ((1, 4), tf.nn.relu),
}


@functools.cache
def _converted(name: str, per_channel: bool = True) -> bytes:
    shape, function = _MODELS[name]
    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel = not per_channel
    random = np.random.default_rng(1)
    examples = [[random.normal(size=shape).astype(np.float32) * 2] for _ in range(8)]
    converter.representative_dataset = lambda: iter(examples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tflite: bytes = converter.convert()
    return tflite


def _ops(tflite: bytes) -> list[tuple[str, int]]:
    return [(op.code, op.version) for op in flatbuffer.read_subgraphs(tflite)[0].ops]


def _codes(tflite: bytes) -> list[tuple[str, int]]:
    return [(flatbuffer.builtin_name(code), code.version) for code in flatbuffer.read_object(tflite).operatorCodes]


def _minimum_runtimes(tflite: bytes) -> set[str]:
    model = flatbuffer.read_object(tflite)
    contents = [model.buffers[entry.buffer].data for entry in model.metadata if entry.name == b"min_runtime_version"]
    return {bytes(bytearray(content)).rstrip(b"\0").decode() for content in contents}


def _run(tflite: bytes, resolver: Any = _RESOLVER.AUTO) -> np.ndarray[Any, Any]:
    interpreter = tf.lite.Interpreter(model_content=tflite, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    (fed,), (computed,) = interpreter.get_input_details(), interpreter.get_output_details()
    random = np.random.default_rng(0)
    results = []
    for _ in range(20):
        interpreter.set_tensor(fed["index"], random.integers(-128, 128, fed["shape"], np.int8))
        interpreter.invoke()
        results.append(interpreter.get_tensor(computed["index"]))
    return np.stack(results)


_SPLIT = [("SPLIT", 2), ("CONV_2D", 3), ("CONV_2D", 3), ("CONCATENATION", 2)]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("name", "before", "after", "runtime"),
    [
        ("grouped", [("CONV_2D", 6)], _SPLIT, "1.14.0"),
        ("grouped_behind_plain", [("CONV_2D", 6), ("CONV_2D", 6)], [("CONV_2D", 3), *_SPLIT], "1.14.0"),
        ("one_channel_groups", [("CONV_2D", 6)], [("DEPTHWISE_CONV_2D", 3)], "1.14.0"),
        ("upsampled_relu", [("TRANSPOSE_CONV", 4)], [("TRANSPOSE_CONV", 3), ("RELU", 2)], "2.3.0"),
        ("upsampled_relu6", [("TRANSPOSE_CONV", 4)], [("TRANSPOSE_CONV", 2), ("RELU6", 2)], "2.2.0"),
    ],
)
def test_rewrite_computes_the_same_integers_by_ops_that_the_edge_tpu_knows(
    name: str, before: list[tuple[str, int]], after: list[tuple[str, int]], runtime: str, per_channel: bool
) -> None:
    tflite = _converted(name, per_channel)
    assert _ops(tflite) == before
    rewritten = rewrite(tflite, "edge_tpu").tflite
    assert _ops(rewritten) == after
    assert set(_codes(rewritten)) == set(after)
    assert _minimum_runtimes(rewritten) == {runtime}
    expected = _run(tflite)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(_run(rewritten), expected)
    np.testing.assert_array_equal(_run(rewritten, _RESOLVER.BUILTIN_REF), _run(tflite, _RESOLVER.BUILTIN_REF))


def test_rewrite_tiles_by_concatenations() -> None:
    tflite = _converted("tiled")
    rewritten = rewrite(tflite, "edge_tpu").tflite
    assert _ops(tflite) == [("TILE", 3)]
    assert _ops(rewritten) == [("CONCATENATION", 2)] * 2
    np.testing.assert_array_equal(_run(rewritten), _run(tflite))


def test_rewrite_says_what_it_did() -> None:
    split, lowered = (
        rewrite(_converted("grouped"), "edge_tpu").applied,
        rewrite(_converted("grouped_behind_plain"), "edge_tpu").applied,
    )
    assert [applied.name for applied in split] == ["split_groups", "remove_unused_op_codes"]
    assert split[0].op == "CONV_2D version 6"
    assert split[0].ops == ("SPLIT version 2", "CONV_2D version 3", "CONV_2D version 3", "CONCATENATION version 2")
    assert [applied.name for applied in lowered] == ["lower_version", "split_groups", "remove_unused_op_codes"]


def test_rewrite_names_tensors_after_the_result_and_removes_the_old_weights() -> None:
    tflite = _converted("grouped")
    result = flatbuffer.read_subgraphs(tflite)[0].tensors[-1].name
    graph = flatbuffer.read_subgraphs(rewrite(tflite, "edge_tpu").tflite)[0]
    names = {tensor.name for tensor in graph.tensors}
    assert {f"{result}/group_{n}{part}" for n in (0, 1) for part in ("", "/input", "/weights", "/bias")} <= names
    assert [tensor.shape for tensor in graph.tensors if tensor.name.endswith("/weights")] == [(3, 3, 3, 2)] * 2
    assert (6, 3, 3, 2) not in [tensor.shape for tensor in graph.tensors]


def test_rewrite_is_deterministic() -> None:
    tflite = _converted("grouped_behind_plain")
    assert rewrite(tflite, "edge_tpu") == rewrite(tflite, "edge_tpu")


def test_rewrite_of_its_own_result_changes_nothing() -> None:
    once = rewrite(_converted("grouped_behind_plain"), "edge_tpu").tflite
    twice = rewrite(once, "edge_tpu")
    assert twice.tflite is once
    assert twice.applied == ()


@pytest.mark.parametrize(
    ("name", "profile"), [("relu", "edge_tpu"), ("grouped", "cpu"), ("exp", "edge_tpu"), ("gelu", "edge_tpu")]
)
def test_rewrite_returns_the_same_bytes_when_nothing_is_needed_or_known(name: str, profile: str) -> None:
    tflite = _converted(name)
    assert rewrite(tflite, profile).tflite is tflite


@pytest.mark.parametrize("profile", ["cpu", "edge_tpu"])
def test_rewrite_removes_op_codes_that_no_op_uses(profile: str) -> None:
    model = flatbuffer.read_object(_converted("relu"))
    unused = schema.OperatorCodeT()
    unused.builtinCode = unused.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    unused.version = 5
    model.operatorCodes.insert(0, unused)
    model.subgraphs[0].operators[0].opcodeIndex = 1
    tflite = flatbuffer.write_object(model)
    rewritten = rewrite(tflite, profile)
    assert [(applied.name, applied.op) for applied in rewritten.applied] == [
        ("remove_unused_op_codes", "DEQUANTIZE version 5")
    ]
    assert _codes(rewritten.tflite) == [("RELU", 2)]
    np.testing.assert_array_equal(_run(rewritten.tflite), _run(tflite))


def test_rewrite_leaves_a_grouped_convolution_when_its_weights_are_computed() -> None:
    model = flatbuffer.read_object(_converted("grouped"))
    graph = model.subgraphs[0]
    filters = int(graph.operators[0].inputs[1])
    graph.tensors[filters].buffer = 0
    graph.inputs = [*graph.inputs, filters]
    tflite = flatbuffer.write_object(model)
    assert rewrite(tflite, "edge_tpu").tflite is tflite


_TIES = np.array([[0.5, 1.5, -0.5, -1.5], [0.25, 0.75, -0.25, 300.0]], np.float32)


def _quantizing_a_constant() -> bytes:
    """A model that beside its own work quantizes a constant, with a scale per row, and reshapes the result."""
    model = flatbuffer.read_object(_converted("relu"))
    graph = model.subgraphs[0]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_TIES.tobytes(), np.uint8)
    model.buffers.append(buffer)
    first = len(graph.tensors)
    for name in ("constant", "quantized", "reshaped"):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = name.encode(), schema.TensorType.INT8, np.array(_TIES.shape, np.int32)
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.array([1.0, 0.5], np.float32)
        tensor.quantization.zeroPoint, tensor.quantization.quantizedDimension = np.array([0, 0], np.int64), 0
        graph.tensors.append(tensor)
    constant = graph.tensors[first]
    constant.type, constant.buffer, constant.quantization = schema.TensorType.FLOAT32, len(model.buffers) - 1, None
    for place, (code, version) in enumerate(
        ((schema.BuiltinOperator.QUANTIZE, 3), (schema.BuiltinOperator.RESHAPE, 1))
    ):
        entry, operator = schema.OperatorCodeT(), schema.OperatorT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = version
        model.operatorCodes.append(entry)
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [first + place], [first + place + 1]
        graph.operators.append(operator)
    options = schema.ReshapeOptionsT()
    options.newShape = list(_TIES.shape)
    graph.operators[-1].builtinOptions, graph.operators[-1].builtinOptionsType = (
        options,
        schema.BuiltinOptions.ReshapeOptions,
    )
    return flatbuffer.write_object(model)


def test_rewrite_folds_the_quantization_of_a_constant_as_the_kernel_rounds() -> None:
    tflite = _quantizing_a_constant()
    interpreter = tf.lite.Interpreter(
        model_content=tflite,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=_RESOLVER.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    (place,) = (tensor["index"] for tensor in interpreter.get_tensor_details() if tensor["name"] == "quantized")
    rewritten = rewrite(tflite, "edge_tpu")
    (folded,) = (t for t in flatbuffer.read_subgraphs(rewritten.tflite)[0].tensors if t.name == "quantized")
    assert rewritten.applied[0].name == "fold_quantize"
    assert _ops(rewritten.tflite) == [("RELU", 2), ("RESHAPE", 1)]
    assert folded.values.tolist() == [[1, 2, -1, -2], [1, 2, -1, 127]]
    np.testing.assert_array_equal(folded.values, interpreter.get_tensor(place))
