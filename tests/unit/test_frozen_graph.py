"""What a traced function becomes before TensorFlow's converter sees it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import convert
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.frozen_graph import freeze
from components.quantization.surgery.prepare import prepare

Function = Callable[[Any], Any]

_X = np.arange(12, dtype=np.float32).reshape(1, 12)


def _frozen(function: Function) -> tuple[list[str], Any]:
    """The types of the ops that are computed in the end, and the result for `_X`, of the frozen graph."""
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((1, 12), name="x"))
    definition = freeze(concrete)
    (source,), (result,) = concrete.inputs, concrete.outputs
    needed = tf.compat.v1.graph_util.extract_sub_graph(definition, [result.op.name])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(needed, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            value = session.run(result.name, {source.name: _X})
    left_out = ("Placeholder", "Const", "Identity")
    return [node.op for node in needed.node if node.op not in left_out], value


def _first_and_last_third(x: Any) -> Any:
    first, _, last = tf.split(x, 3, axis=-1)
    return tf.concat([last, first], -1)


def _middle(x: Any) -> Any:
    return tf.split(x, [4, 2, 6], axis=1)[1] * 2.0


def _column(x: Any) -> Any:
    return tf.unstack(tf.reshape(x, (1, 3, 4)), axis=2)[3] * 2.0


_PARTLY_USED: dict[str, tuple[Function, list[float]]] = {
    "Split": (_first_and_last_third, [8, 9, 10, 11, 0, 1, 2, 3]),
    "SplitV": (_middle, [8, 10]),
    "Unpack": (_column, [6, 14, 22]),
}


@pytest.mark.parametrize("op", _PARTLY_USED)
def test_freeze_slices_what_is_used_when_other_parts_are_not(op: str) -> None:
    function, expected = _PARTLY_USED[op]
    ops, value = _frozen(function)
    assert op not in ops
    assert ops.count("StridedSlice") == (2 if op == "Split" else 1)
    assert value.tolist() == [expected]


def test_freeze_keeps_a_split_when_all_parts_are_used() -> None:
    ops, value = _frozen(lambda x: tf.concat(tf.split(x, 2, axis=-1)[::-1], -1))
    assert ops == ["Split", "ConcatV2"]
    assert value.tolist() == [[6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]]


def test_freeze_slices_the_rest_of_a_split_when_one_part_is_multiplied_by_zeros() -> None:
    def function(x: Any) -> Any:
        one, other = tf.split(x, 2, axis=-1)
        return tf.sigmoid(one) * tf.matmul(tf.zeros((1, 3)), tf.ones((3, 6))) + other

    ops, value = _frozen(function)
    assert ops == ["StridedSlice"]
    assert value.tolist() == [[6, 7, 8, 9, 10, 11]]


def test_freeze_computes_what_becomes_constant_when_a_product_with_zeros_does() -> None:
    ops, value = _frozen(lambda x: x + (tf.matmul(x * 0.0, tf.ones((12, 12))) + 2.0))
    assert ops == ["AddV2"]
    assert value.tolist() == (_X + 2).tolist()


def test_freeze_keeps_an_output_when_it_became_constant_before_the_rest() -> None:
    def function(x: Any) -> Any:
        return x * 0.0, ((0.0 * x) * 2.0) * tf.sin(x) + x

    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((1, 12), name="x"))
    definition = freeze(concrete)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            zeros, same = session.run([tensor.name for tensor in concrete.outputs], {concrete.inputs[0].name: _X})
    assert not zeros.any()
    assert same.tolist() == _X.tolist()


def test_freeze_keeps_a_sum_with_zeros_when_it_changes_the_shape() -> None:
    ops, value = _frozen(lambda x: x + tf.zeros((2, 12)))
    assert ops == ["AddV2"]
    assert value.tolist() == [_X[0].tolist()] * 2


@pytest.mark.slow
@pytest.mark.parametrize("op", _PARTLY_USED)
def test_convert_gives_the_same_integers_each_time_when_an_output_is_unused(op: str) -> None:
    inputs = tf_keras.Input((6,), name="x")
    x = tf_keras.layers.Lambda(_PARTLY_USED[op][0], name="parts")(tf_keras.layers.Dense(12, name="dense")(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="y")(x))
    examples = np.random.default_rng(1).normal(size=(1, 6)).astype(np.float32)
    made = {convert(model, representative_dataset=[examples], profile="cpu") for _ in range(8)}
    (tflite,) = made
    assert "STRIDED_SLICE" in {op.code for op in flatbuffer.read_subgraphs(tflite)[0].ops}


@pytest.mark.extended
@pytest.mark.parametrize("scheme", ["full_int8", "int16x8"])
def test_convert_gives_the_same_integers_each_time_when_the_biases_of_a_gru_are_zero(scheme: str) -> None:
    inputs = tf_keras.Input((4, 6), name="x")
    model = prepare(tf_keras.Model(inputs, tf_keras.layers.GRU(8, name="gru")(inputs))).model
    examples = np.random.default_rng(1).normal(size=(16, 4, 6)).astype(np.float32)
    assert len({convert(model, scheme, [examples], "cpu") for _ in range(4)}) == 1
