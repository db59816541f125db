"""What convert() promises besides the proof: names, types at the edges, same bytes, a cache, and a report."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import convert, quantize_model
from components.quantization.conversion import cache, flatbuffer, interface
from components.quantization.conversion.convert import convert_with_report
from components.quantization.conversion.dense_function import dense_function
from components.quantization.conversion.frozen_graph import freeze
from components.quantization.qat.calibration import calibrate

import small_models as models

pytestmark = pytest.mark.long
layers = tf_keras.layers


def _two_inputs() -> tf_keras.Model:
    """Inputs of different shapes and ranges, and outputs, none in alphabetical order."""
    wide, narrow = layers.Input((3,), name="wide"), layers.Input((2,), name="narrow")
    x = layers.Concatenate(name="both")([layers.Dense(4, name="a")(wide), layers.Dense(4, name="b")(narrow)])
    return tf_keras.Model([wide, narrow], [layers.Dense(2, name="second")(x), layers.Dense(3, name="first")(x)])


def _examples() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {"narrow": random.random((8, 2), np.float32), "wide": 100.0 * random.random((8, 3), np.float32)}


def _with_lstm() -> tf_keras.Model:
    """An LSTM, which training leaves out, between Dense layers, which it does not."""
    return models.chain((4, 3), layers.Dense(4, name="before"), layers.LSTM(4, name="lstm"), layers.Dense(2, name="y"))


def _scales(tflite: bytes) -> dict[str, tuple[float, ...]]:
    return {tensor.name: tensor.scale for tensor in flatbuffer.read_subgraphs(tflite)[0].tensors}


def _run(tflite: bytes, **inputs: Any) -> dict[str, Any]:
    interpreter = tf.lite.Interpreter(model_content=tflite, num_threads=1)
    interpreter.allocate_tensors()
    outputs: dict[str, Any] = interpreter.get_signature_runner()(**inputs)
    return outputs


def test_inputs_and_outputs_have_the_names_and_order_of_the_model() -> None:
    tflite = convert(_two_inputs(), representative_dataset=[_examples()])
    graph = flatbuffer.read_subgraphs(tflite)[0]
    assert [graph.tensors[index].name for index in graph.inputs] == ["wide", "narrow"]
    assert [graph.tensors[index].name for index in graph.outputs] == ["second", "first"]
    assert len({tensor.name for tensor in graph.tensors}) == len(graph.tensors)
    signature = tf.lite.Interpreter(model_content=tflite).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["narrow", "wide"], "outputs": ["first", "second"]}


def test_calibration_goes_by_name_when_inputs_are_given_in_another_order() -> None:
    tflite = convert(_two_inputs(), representative_dataset=[_examples()])
    scales = _scales(tflite)
    # Ranges from 0 to the largest value, in 255 steps.
    for name, values in _examples().items():
        assert scales[name][0] == pytest.approx(values.max() / 255, rel=1e-5)


def test_trained_model_gives_the_same_bytes_whatever_the_examples_which_are_not_read() -> None:
    def unread() -> Iterator[Any]:
        raise AssertionError("read")
        yield

    model = models.trained_with_fake_quantization()
    assert convert(model) == convert(model, representative_dataset=unread())


def test_only_what_has_no_range_is_calibrated_when_a_layer_was_not_trained() -> None:
    model = quantize_model(_with_lstm())
    random = np.random.default_rng(1)
    calibrate(model, [{"x": random.normal(size=(16, 4, 3)).astype(np.float32)}])
    made = [
        convert_with_report(model, representative_dataset=[size * random.normal(size=(16, 4, 3))])
        for size in (1.0, 5.0)
    ]
    ranges = [_scales(conversion.tflite) for conversion in made]
    calibrated = set(made[0].report.calibrated)
    assert calibrated == {"tfl.unidirectional_sequence_lstm", "tfl.strided_slice"}
    assert ranges[0]["x"] == ranges[1]["x"]
    assert ranges[0]["y"] == ranges[1]["y"]
    assert made[0].report.examples == 16


def test_report_says_that_all_was_calibrated_when_the_model_is_a_float_one() -> None:
    report = convert_with_report(models.dense(), representative_dataset=[[[0.0, 0.5, 1.0]]]).report
    assert (report.calibrated, report.examples, report.profile) == (("*",), 1, "edge_tpu")
    assert report.io_dtypes == {"x": "int8", "y": "int8"}
    assert '"calibrated"' in report.to_json()


@pytest.mark.parametrize(
    ("io_dtype", "ops"),
    [
        ("int8", {}),
        ("uint8", {"QUANTIZE": 2}),
        ({"image": "uint8"}, {"QUANTIZE": 1}),
        ({"probabilities": "float32"}, {"DEQUANTIZE": 1}),
        ("float32", {"QUANTIZE": 1, "DEQUANTIZE": 1}),
    ],
)
def test_edges_have_the_types_that_were_asked_for_and_nothing_stray(io_dtype: Any, ops: dict[str, int]) -> None:
    model = models.trained_with_fake_quantization()
    plain, tflite = convert(model), convert(model, io_dtype=io_dtype)
    asked = io_dtype if isinstance(io_dtype, dict) else {"image": io_dtype, "probabilities": io_dtype}
    graph, inner = (flatbuffer.read_subgraphs(content)[0] for content in (tflite, plain))
    edges = {graph.tensors[index].name: graph.tensors[index] for index in (*graph.inputs, *graph.outputs)}
    assert {name: edge.dtype.lower() for name, edge in edges.items()} == {
        "image": "int8",
        "probabilities": "int8",
        **asked,
    }
    added = [op.code for op in graph.ops]
    for op in inner.ops:
        added.remove(op.code)
    assert {code: added.count(code) for code in added} == ops
    # The same image, by hand: what the int8 model answers, in the type that was asked for.
    codes = np.random.default_rng(1).integers(-128, 128, (1, 8, 8, 1)).astype(np.int8)
    scale, zero_point = _scales(plain)["image"][0], inner.tensors[inner.inputs[0]].zero_point[0]
    fed = {
        "int8": codes,
        "uint8": (codes.astype(np.int16) + 128).astype(np.uint8),
        "float32": ((codes.astype(np.float32) - zero_point) * np.float32(scale)).astype(np.float32),
    }
    expected = _run(plain, image=codes)["probabilities"].astype(np.float64)
    found = _run(tflite, image=fed[asked.get("image", "int8")])["probabilities"].astype(np.float64)
    # A softmax has a scale of 1/256 and a zero point of -128.
    shown = {"int8": expected, "uint8": expected + 128, "float32": (expected + 128) / 256}
    np.testing.assert_array_equal(found, shown[asked.get("probabilities", "int8")])


def test_report_says_what_the_file_has_when_an_input_is_an_index() -> None:
    word = layers.Input((1,), name="word", dtype="int32")
    model = tf_keras.Model(word, layers.Dense(2, name="y")(layers.Embedding(5, 4, name="table")(word)))
    words = [np.arange(5, dtype=np.int32).reshape(5, 1)]
    report = convert_with_report(model, representative_dataset=words, profile="cpu").report
    assert report.io_dtypes == {"word": "int32", "y": "int8"}
    with pytest.raises(ValueError, match="got other types for word int32, which stay as they are"):
        convert(model, representative_dataset=words, profile="cpu", io_dtype={"word": "uint8"})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_each_output_has_its_type_when_two_are_one_tensor(dtype: str) -> None:
    x = layers.Input((3,), name="x")
    y = layers.Dense(2, name="y")(x)
    model = tf_keras.Model(x, [y, y])
    examples = [np.linspace(-1, 1, 30, dtype=np.float32).reshape(10, 3)]
    tflite = convert(model, representative_dataset=examples, io_dtype={"y_1": dtype})
    assert interface.names_of(tflite) == (["x"], ["y", "y_1"])
    found = _run(tflite, x=np.array([[-128, 0, 127]], np.int8))
    assert {name: value.dtype for name, value in found.items()} == {"y": np.int8, "y_1": np.dtype(dtype)}
    graph = flatbuffer.read_subgraphs(tflite)[0]
    assert {graph.tensors[index].dtype.lower() for index in graph.outputs} == {"int8", dtype}


def test_output_has_its_name_when_it_is_the_input_and_gets_another_type() -> None:
    x = layers.Input((3,), name="x")
    model = tf_keras.Model(x, [x, layers.Dense(2, name="y")(x)])
    examples = [np.linspace(-1, 1, 30, dtype=np.float32).reshape(10, 3)]
    graph = flatbuffer.read_subgraphs(convert(model, representative_dataset=examples, io_dtype="uint8"))[0]
    assert [graph.tensors[index].name for index in (*graph.inputs, *graph.outputs)] == ["x", "x", "y"]


def test_cache_is_not_used_when_inputs_are_in_another_order(tmp_path: Path) -> None:
    """The frozen graph is the same then."""
    wide, narrow = layers.Input((3,), name="wide"), layers.Input((2,), name="narrow")
    y = layers.Dense(2, name="y")(layers.Concatenate(name="both")([wide, narrow]))
    for order in ([wide, narrow], [narrow, wide]):
        made = convert_with_report(
            tf_keras.Model(order, y, name="m"), representative_dataset=[_examples()], cache_dir=tmp_path
        )
        assert not made.report.cached
        assert interface.names_of(made.tflite)[0] == [one.name for one in order]


def test_cache_is_refused_when_a_file_is_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="expected a directory or where to make one"):
            convert_with_report(models.dense(), representative_dataset=[[[0.0, 0.5, 1.0]]], cache_dir=path)


def test_conversion_is_made_when_the_cache_can_neither_be_read_nor_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments: dict[str, Any] = {"representative_dataset": [[[0.0, 0.5, 1.0]]], "cache_dir": tmp_path}
    model = models.dense()
    first = convert_with_report(model, **arguments)
    (entry,) = tmp_path.iterdir()
    entry.unlink()
    entry.mkdir()
    assert convert_with_report(model, **arguments).tflite == first.tflite
    assert "not kept in the cache" in caplog.text
    assert list(tmp_path.iterdir()) == [entry]  # nothing half-written


def test_cache_gives_the_same_file_without_converting_when_asked_again(tmp_path: Path) -> None:
    model = models.dense()
    first, second = (
        convert_with_report(model, representative_dataset=[[[0.0, 0.5, 1.0]]], cache_dir=tmp_path) for _ in range(2)
    )
    assert (first.report.cached, second.report.cached) == (False, True)
    assert first.tflite == second.tflite
    assert second.report.calibrated == first.report.calibrated
    assert "convert" not in second.report.seconds


def test_saved_model_gives_the_same_graph_and_the_same_bytes_with_each_load(tmp_path: Path) -> None:
    first, second = (tf_keras.Input((6,), name=name) for name in ("query", "document"))
    towers = [layers.Dense(4, activation="relu")(layers.Dense(8)(tower)) for tower in (first, second)]
    tf_keras.Model([first, second], layers.Dense(1)(layers.Concatenate()(towers))).save(tmp_path / "model")
    examples = [{name: np.eye(6, dtype=np.float32) for name in ("query", "document")}]
    digests = set()
    for _ in range(8):
        function = dense_function(tmp_path / "model")
        tflite = convert_with_report(function, representative_dataset=examples).tflite
        digests.add((cache.digest_of(freeze(function.concrete)), tflite))
    assert len(digests) == 1


def test_cache_finds_a_model_whose_graph_is_rewritten_for_16_bits(tmp_path: Path) -> None:
    model, images = models.trained_with_fake_quantization(), [models.images(10)]
    made = [convert_with_report(model, "int16x8", images, "cpu", cache_dir=tmp_path) for _ in range(2)]
    assert [conversion.report.cached for conversion in made] == [False, True]


def test_cache_keeps_each_method_when_the_best_is_chosen(tmp_path: Path) -> None:
    model, images = models.convolutional(), [models.images(10)]
    asked: list[bytes] = []

    def score(tflite: bytes) -> float:
        asked.append(tflite)
        return float(len(asked) % 4)

    arguments: dict[str, Any] = {"calibration": "auto", "score": score, "cache_dir": tmp_path}
    first, second = (convert_with_report(model, representative_dataset=images, **arguments) for _ in range(2))
    assert first.report.calibration == second.report.calibration == "percentile_99.9"  # the third
    assert (first.report.cached, second.report.cached) == (False, True)
    assert asked[4:] == asked[:4]
    assert "convert" not in second.report.seconds
    alone = convert_with_report(model, representative_dataset=images, calibration="percentile_99.9")
    assert alone.tflite == first.tflite


@pytest.mark.parametrize("build", [_two_inputs, _with_lstm])
def test_other_calibration_keeps_names_and_order(build: Callable[[], tf_keras.Model]) -> None:
    examples = _examples() if build is _two_inputs else {"x": np.random.default_rng(1).random((8, 4, 3), np.float32)}
    model = build()
    plain, other = (
        convert_with_report(model, representative_dataset=[examples], calibration=method).tflite
        for method in ("min_max", "percentile_95")
    )
    assert interface.names_of(other) == interface.names_of(plain)
    assert other != plain


def test_report_says_that_all_was_calibrated_when_activations_have_16_bits() -> None:
    report = convert_with_report(models.trained_with_fake_quantization(), "int16x8", [models.images(10)], "cpu").report
    assert (report.calibrated, report.calibration) == (("*",), "min_max")


def test_cache_is_not_used_when_examples_or_types_differ_or_the_entry_is_broken(tmp_path: Path) -> None:
    model, examples = models.dense(), [[[0.0, 0.5, 1.0]]]
    convert_with_report(model, representative_dataset=examples, cache_dir=tmp_path)
    (entry,) = tmp_path.iterdir()
    others: list[dict[str, Any]] = [
        {"representative_dataset": [[[0.0, 0.5, 2.0]]]},
        {"representative_dataset": examples, "io_dtype": "uint8"},
        {"representative_dataset": examples, "profile": "cpu"},
    ]
    assert not any(convert_with_report(model, **other, cache_dir=tmp_path).report.cached for other in others)
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    again = convert_with_report(model, representative_dataset=examples, cache_dir=tmp_path)
    assert not again.report.cached
    assert convert_with_report(model, representative_dataset=examples, cache_dir=tmp_path).report.cached


def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    model = models.trained_with_fake_quantization()
    model.save(tmp_path / "model")
    script = (
        "import hashlib, sys, tensorflow as tf; from components.quantization import convert;"
        "[tf.function(lambda: tf.constant(i)).get_concrete_function() for i in range(int(sys.argv[2]))];"
        "print(hashlib.sha256(convert(sys.argv[1])).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "model"), seed],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "7")
    }
    assert digests == {f"{hashlib.sha256(convert(tmp_path / 'model')).hexdigest()}\n"}


def test_bias_gets_the_scale_that_its_op_computes_with() -> None:
    # UNPACK gives the inputs of all steps one scale, and the converter forgets the biases behind it.
    random = np.random.default_rng(1)
    recurrent = models.chain((6, 6), layers.GRU(8, name="gru"), layers.Dense(2, name="y"))
    recurrent.get_layer("gru").cell.bias.assign(random.normal(size=(2, 24)))
    model = quantize_model(recurrent)
    steps = random.normal(size=(16, 6, 6)).astype(np.float32)
    calibrate(model, [{"x": steps}])
    graph = flatbuffer.read_subgraphs(convert(model, representative_dataset=[steps]))[0]
    dense = [op for op in graph.ops if op.code == "FULLY_CONNECTED" and len(op.inputs) == 3]
    assert len(dense) >= 6
    for op in dense:
        source, weights, bias = (graph.tensors[index] for index in op.inputs)
        if np.any(bias.values):
            assert bias.scale[0] == pytest.approx(source.scale[0] * weights.scale[0], rel=1e-3)
