"""Calibration methods, measured on the integer models that they give."""

import logging
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization import convert
from components.quantization.conversion import flatbuffer, scoring
from components.quantization.conversion.calibration import METHODS, choose, recalibrated
from components.quantization.conversion.calibration.recalibration import Feeds
from components.quantization.conversion.calibration.scale_groups import SAME_SCALE, calibrated_range, scale_groups
from components.quantization.interpreter import IntegerModel

from calibration_cases import Calibrated, calibrated, decibels, noise, quantized, shared_scales, spiked, uniform


def _ranges(tflite: bytes) -> dict[str, tuple[float, float]]:
    tensors = flatbuffer.read_object(tflite).subgraphs[0].tensors
    return {tensor.name.decode(): found for tensor in tensors if (found := calibrated_range(tensor)) is not None}


def _range_of(case: Calibrated, part: str, method: str) -> tuple[float, float]:
    return next(found for name, found in _ranges(case.recalibrated(method)).items() if part in name)


def test_recalibrated_returns_the_file_itself_when_the_method_is_min_max() -> None:
    assert uniform().recalibrated("min_max") is uniform().tflite


def test_recalibrated_gains_decibels_when_one_value_is_far_out() -> None:
    case = spiked()
    score = decibels(case, noise(9, 16))
    scores = {method: score(case.quantized(method)) for method in METHODS}
    assert scores["min_max"] < 12  # 42.7 / 255 = 0.168 a step: an error of 0.05, to values of 0.15
    assert scores["percentile_99.99"] > scores["min_max"] + 18
    assert scores["percentile_99.9"] > scores["min_max"] + 15
    assert scores["mse"] > scores["min_max"] + 4


def test_choose_takes_min_max_when_values_fill_their_range() -> None:
    case = uniform()
    score = decibels(case, case.examples)
    choice = choose(["percentile_95", "percentile_99", "min_max"], case.quantized, score)
    scores = {found.method: found.score or 0.0 for found in choice.scores}
    assert choice.method == "min_max"
    assert choice.tflite == case.quantized("min_max")
    assert scores["min_max"] > scores["percentile_99"] + 2 > scores["percentile_95"] + 10


def test_choose_takes_the_percentile_when_it_measures_best(caplog: pytest.LogCaptureFixture) -> None:
    case = spiked()
    with caplog.at_level(logging.INFO):
        choice = choose(METHODS, case.quantized, decibels(case, noise(9, 4)), tolerance=1.0)
    assert choice.method == "percentile_99.99"
    assert [found.method for found in choice.scores] == list(METHODS)
    lines = [record.getMessage() for record in caplog.records if "scores" in record.getMessage()]
    assert [line.split()[1] for line in lines] == list(METHODS)


def test_recalibrated_gives_the_percentile_of_the_values_when_they_fill_their_range() -> None:
    values = np.concatenate([example["vector"].ravel() for example in uniform().examples])
    lower, upper = _range_of(uniform(), "MatMul", "percentile_95")
    expected = np.percentile(values, [5, 95])  # both layers are the identity
    assert (lower, upper) == pytest.approx(tuple(expected), abs=5e-4)  # bins are 1.2e-4 wide, values 6e-4 apart


@pytest.mark.parametrize("method", METHODS)
def test_recalibrated_leaves_integers_alone_when_ops_share_scales(method: str) -> None:
    tflite = shared_scales().quantized(method)
    graph = flatbuffer.read_subgraphs(tflite)[0]
    assert {tensor.dtype for tensor in graph.tensors} == {"INT8", "INT32"}  # INT32: biases, shapes
    found = set()
    for op in graph.ops:
        tensors = [graph.tensors[i] for i in (*op.inputs, *op.outputs)]
        if op.code in SAME_SCALE:
            found.add(op.code)
            assert len({(t.scale, t.zero_point) for t in tensors if t.dtype == "INT8"}) == 1, op
    assert found >= {"MAX_POOL_2D", "CONCATENATION", "RESHAPE", "PAD", "PADV2", "STRIDED_SLICE"}


@pytest.mark.parametrize("method", METHODS)
def test_recalibrated_gives_ranges_with_zero_when_min_max_had_wider_ones(method: str) -> None:
    before, after = _ranges(shared_scales().tflite), _ranges(shared_scales().recalibrated(method))
    assert list(before) == list(after)
    for lower, upper in after.values():
        assert method == "min_max" or lower <= 0 <= upper
    for name in ("serving_default_image:0", "serving_default_vector:0"):
        assert after[name] == before[name]


def test_recalibrated_gives_the_union_when_tensors_are_concatenated() -> None:
    after = _ranges(shared_scales().recalibrated("percentile_99"))
    shared = [found for name, found in after.items() if any(p in name for p in ("Relu", "MaxPool", "concat", "Tanh"))]
    assert len(set(shared)) == 1
    assert shared[0][0] <= -0.99  # the tanh keeps its range, which its scale has anyway
    before = _ranges(shared_scales().tflite)
    assert shared[0][1] < next(found[1] for name, found in before.items() if "MaxPool" in name)


def test_recalibrated_feeds_inputs_by_name_when_the_file_has_no_signature() -> None:
    case = shared_scales()
    model = flatbuffer.read_object(case.tflite)
    inputs = [model.subgraphs[0].tensors[i].name.decode() for i in model.subgraphs[0].inputs]
    names = [name.removeprefix("serving_default_").removesuffix(":0") for name in inputs]
    model.signatureDefs = None
    bare = recalibrated(flatbuffer.write_object(model), case.feeds, "percentile_99.9", inputs=names)
    assert _ranges(bare) == _ranges(case.recalibrated("percentile_99.9"))


@pytest.mark.parametrize("method", METHODS[1:])
def test_recalibrated_gives_the_same_bytes_when_called_again(method: str) -> None:
    assert shared_scales().recalibrated(method) == shared_scales().recalibrated(method)


def test_recalibrated_gives_the_same_ranges_when_examples_come_in_another_order() -> None:
    case = shared_scales()
    other = recalibrated(case.tflite, lambda: iter(case.examples[::-1]), "mse")
    assert other == case.recalibrated("mse")


def test_recalibrated_leaves_ranges_alone_when_they_were_trained() -> None:
    inputs = tf_keras.Input((4,), name="vector")
    x = tf.quantization.fake_quant_with_min_max_args(inputs, -4.0, 4.0)
    x = tf_keras.layers.Reshape((2, 2))(tf.quantization.fake_quant_with_min_max_args(tf.exp(x), 0.0, 8.0))
    model = tf_keras.Model(inputs, tf.exp(x))
    random = np.random.default_rng(5)
    case = calibrated(model, tuple({"vector": random.normal(size=(1, 4)).astype(np.float32)} for _ in range(200)))
    before, after = _ranges(case.tflite), _ranges(case.recalibrated("percentile_90"))
    graph = flatbuffer.read_subgraphs(case.tflite)[0]
    assert {"QUANTIZE", "DEQUANTIZE"} <= {op.code for op in graph.ops}
    last = graph.tensors[graph.ops[-1].outputs[0]].name
    assert {name for name in before if before[name] != after[name]} == {last}


@pytest.mark.parametrize(
    ("feeds", "inputs", "problem"),
    [
        (lambda: iter(()), None, "got no example"),
        (lambda: iter([{"image": np.zeros((1, 8, 8, 3), np.float32)}]), None, "missing the inputs .*vector"),
        (lambda: iter(()), ["image"], "expected 2 names"),
    ],
)
def test_recalibrated_says_what_is_wrong_when_examples_do_not_fit(
    feeds: Feeds, inputs: list[str] | None, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        recalibrated(shared_scales().tflite, feeds, "mse", inputs)


def test_recalibrated_refuses_a_file_when_it_was_not_calibrated() -> None:
    with pytest.raises(ValueError, match="without calibrated ranges"):
        recalibrated(quantized(uniform().tflite), uniform().feeds, "mse")


def test_scale_groups_leave_out_all_that_share_a_scale_when_one_has_a_state() -> None:
    model, operator, shared = _shared_group()
    model.subgraphs[0].tensors[operator.inputs[1]].isVariable = True
    assert not any(shared & set(group.tensors) for group in scale_groups(model))


def test_scale_groups_leave_out_all_that_share_a_scale_when_one_was_trained() -> None:
    model, operator, shared = _shared_group()
    model.operatorCodes[operator.opcodeIndex].builtinCode = schema.BuiltinOperator.DEQUANTIZE
    assert not any(shared & set(group.tensors) for group in scale_groups(model))


def _shared_group() -> tuple[Any, Any, set[int]]:
    """A model, an op of it whose output shares its scale with others, and all that share it."""
    model = flatbuffer.read_object(shared_scales().tflite)
    group = next(group for group in scale_groups(model) if len(group.tensors) > 2)
    operator = next(op for op in model.subgraphs[0].operators if group.origins[0] in op.outputs)
    return model, operator, set(group.tensors)


def test_accuracy_counts_each_example_once_when_scores_have_axes_of_1() -> None:
    """As the output of a convolution in place of a Dense layer."""
    model = tf_keras.Sequential(
        [tf_keras.layers.InputLayer((8, 8, 1), name="image"), tf_keras.layers.Conv2D(3, 8, name="scores")]
    )
    images = np.random.default_rng(1).random((20, 8, 8, 1), np.float32)
    tflite = convert(model, representative_dataset=[images])
    predicted = IntegerModel(tflite).predict({"image": images})["scores"].argmax(-1).ravel()
    labels = np.where(np.arange(20) < 15, predicted, (predicted + 1) % 3)
    assert scoring.accuracy([{"image": images}], labels)(tflite) == 0.75


def test_accuracy_says_so_when_an_example_has_several_rows_of_scores() -> None:
    model = tf_keras.Sequential(
        [tf_keras.layers.InputLayer((8, 8, 1), name="image"), tf_keras.layers.Conv2D(3, 7, name="scores")]
    )
    images = np.random.default_rng(1).random((4, 8, 8, 1), np.float32)
    tflite = convert(model, representative_dataset=[images])
    with pytest.raises(ValueError, match=r"got an output of shape \(2, 2, 3\) per example, expected one row"):
        scoring.accuracy([{"image": images}], np.zeros(4))(tflite)
