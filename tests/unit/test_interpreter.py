from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tf_keras
from tensorflow_model_analysis.extractors.tflite_predict_extractor import TFLitePredictionDoFn

from components.quantization import batched_interpreter, convert, interpreter
from components.quantization.interpreter import IntegerModel, quantize

import small_models as models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def integer_model() -> bytes:
    return convert(models.trained_with_fake_quantization())


def _kernel_quantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """What TFLite's own QUANTIZE kernel makes of float values, by a model that only quantizes."""
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    function = tf.function(lambda x: tf.quantization.fake_quant_with_min_max_vars(x, low, high) + 0.0)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(tf.TensorSpec([len(values)]))], tf.Module()
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_output_type = tf.int8
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    result: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


@pytest.mark.parametrize(("scale", "zero_point"), [(1 / 255, -128), (0.0513, -5), (1.0, 0), (0.3, 127)])
def test_quantize_equals_the_kernel_inside_on_and_beyond_the_range(scale: float, zero_point: int) -> None:
    scale = float(np.float32(scale))
    rng = np.random.default_rng(1)
    steps = np.concatenate(
        [
            rng.uniform(-200, 200, 500),  # inside and beyond
            np.arange(-140, 140),  # on a step
            np.arange(-140, 140) + 0.5,  # between two steps
        ]
    )
    values = (steps * scale).astype(np.float32)
    ours = quantize(values, scale, zero_point, np.int8)
    np.testing.assert_array_equal(ours, _kernel_quantize(values, scale, zero_point))


def test_stock_tfma_formula_differs_when_values_lie_between_steps_or_beyond() -> None:
    values = np.array([0.6, -0.6, 1.0 + 1 / 255], np.float32)
    scale, zero_point = 1 / 255, -128
    stock = (values / scale + zero_point).astype(np.int32).astype(np.int8)
    ours = quantize(values, scale, zero_point, np.int8)
    assert ours.tolist() == [25, -128, 127]
    assert stock[2] == -128  # wraps: white becomes black
    assert not np.array_equal(stock, ours)


def test_predict_equals_the_float_io_twin_bit_for_bit() -> None:
    model = models.trained_with_fake_quantization()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # as for our default target
    twin = tf.lite.Interpreter(model_content=converter.convert())
    twin.allocate_tensors()
    images = models.images(64) * 3 - 1  # inside and beyond the trained range 0..1
    ours = IntegerModel(convert(model)).predict({"image": images})["probabilities"]
    for image, scores in zip(images, ours, strict=True):
        twin.set_tensor(twin.get_input_details()[0]["index"], image[None])
        twin.invoke()
        np.testing.assert_array_equal(twin.get_tensor(twin.get_output_details()[0]["index"])[0], scores)


def _edge_values(tflite: bytes, rng: np.random.Generator, count: int) -> np.ndarray:
    """Rows of 3 values on a step of the input's scale, between two, anywhere inside and beyond the range."""
    interpreter = tf.lite.Interpreter(model_content=tflite)
    scale, zero_point = interpreter.get_input_details()[0]["quantization"]
    steps = rng.integers(-140, 140, (count, 3)) - zero_point
    offsets = rng.choice([0.0, 0.5, -0.5, 0.4999], (count, 3))
    anywhere = rng.uniform(-300, 300, (count, 3))
    beyond = rng.choice([-1e6, 1e6, -129 - zero_point, 128 - zero_point], (count, 3))
    values = np.where(
        rng.random((count, 3)) < 0.5, steps + offsets, np.where(rng.random((count, 3)) < 0.7, anywhere, beyond)
    )
    return (values * np.float32(scale)).astype(np.float32)


def _twins(seed: int) -> tuple[bytes, tf.lite.Interpreter, np.ndarray]:
    """A random layer with int8 edges, the same with float edges in a bare interpreter, and inputs."""
    rng = np.random.default_rng(seed)
    tf_keras.utils.set_random_seed(seed)
    model = models.dense(units=5)
    low, high = sorted(rng.normal(0, 10.0 ** rng.integers(-2, 3), 2))
    examples = [rng.uniform(low, high, (32, 3)).astype(np.float32)]
    integers, floats = (
        convert(model, representative_dataset=examples, profile="cpu", io_dtype=io_dtype)
        for io_dtype in ("int8", "float32")
    )
    twin = tf.lite.Interpreter(model_content=floats)
    twin.allocate_tensors()
    return integers, twin, _edge_values(integers, rng, 200)


@pytest.mark.parametrize("seed", range(12))
def test_predict_equals_the_float_twin_of_a_random_model_on_any_values(seed: int) -> None:
    integers, twin, values = _twins(seed)
    found = IntegerModel(integers).predict({"x": values})["y"]
    np.testing.assert_array_equal(found, _by_twin(twin, values))


def _by_twin(twin: tf.lite.Interpreter, values: np.ndarray) -> np.ndarray:
    rows = []
    for row in values:
        twin.set_tensor(twin.get_input_details()[0]["index"], row[None])
        twin.invoke()
        rows.append(twin.get_tensor(twin.get_output_details()[0]["index"]))
    return np.concatenate(rows)


@pytest.mark.parametrize("beyond", [False, True])
def test_stock_tfma_differs_from_the_float_twin(tmp_path: Path, beyond: bool) -> None:
    """TFMA's own extractor truncates where the kernel rounds, and wraps where it clips."""
    integers, twin, values = _twins(seed=1)
    if not beyond:
        scale, zero_point = tf.lite.Interpreter(model_content=integers).get_input_details()[0]["quantization"]
        values = np.clip(values, (-128 - zero_point) * scale, (127 - zero_point) * scale)
    (tmp_path / "tflite").write_bytes(integers)
    config = tfma.EvalConfig(model_specs=[tfma.ModelSpec(model_type="tf_lite")])
    shared = tfma.default_eval_shared_model(str(tmp_path), eval_config=config, include_default_metrics=False)
    stock = TFLitePredictionDoFn(config, {"": shared})
    stock.setup()
    (extracts,) = stock._batch_reducible_process({"features": {"x": list(values)}})
    found, expected = np.asarray(extracts["predictions"]), _by_twin(twin, values)
    assert found.shape == expected.shape
    changed = (found != expected).any(axis=1)
    assert changed.mean() > 0.2
    np.testing.assert_array_equal(IntegerModel(integers).predict({"x": values})["y"], expected)


def test_predict_gives_one_row_per_example(integer_model: bytes) -> None:
    model = IntegerModel(integer_model)
    assert model.input_names == ("image",)
    together = model.predict({"image": models.images(5)})["probabilities"]
    assert together.shape == (5, 3)
    assert together.dtype == np.float32
    alone = model.predict({"image": models.images(5)[3:4]})["probabilities"]
    np.testing.assert_array_equal(together[3:4], alone)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"picture": models.images(1)}, "input 'image' is no feature; there are picture"),
        ({"image": np.zeros((2, 8, 8))}, r"got shape \(2, 8, 8\), expected \(batch, 8, 8, 1\)"),
        ({"image": np.full((1, 8, 8, 1), np.nan)}, "not numbers"),
    ],
)
def test_predict_raises_when_an_input_is_wrong(integer_model: bytes, features: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegerModel(integer_model).predict(features)


@pytest.mark.parametrize("io_dtype", ["float32", {"image": "float32"}, {"probabilities": "float32"}, "uint8"])
def test_predict_is_the_same_whatever_the_types_of_the_edges(integer_model: bytes, io_dtype: Any) -> None:
    images = models.images(20) * 3 - 1  # inside and beyond the trained range 0..1
    expected = IntegerModel(integer_model).predict({"image": images})["probabilities"]
    tflite = convert(models.trained_with_fake_quantization(), io_dtype=io_dtype)
    np.testing.assert_array_equal(IntegerModel(tflite).predict({"image": images})["probabilities"], expected)
    with pytest.raises(ValueError, match="not numbers"):
        IntegerModel(tflite).predict({"image": np.full((1, 8, 8, 1), np.nan)})


def test_predict_passes_indices_on_as_they_are() -> None:
    class Argmax(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.int32, name="x")])
        def call(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"position": tf.argmax(x, axis=1, output_type=tf.int32)}

    module = Argmax()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    model = IntegerModel(converter.convert())
    scores = np.array([[1, 9, 3, 4], [1, 2, 3, 400]])
    assert model.predict({"x": scores})["position"].tolist() == [1.0, 3.0]
    assert model.predict({"x": scores.astype(np.float32)})["position"].tolist() == [1.0, 3.0]
    for wrong in (scores + 0.5, scores * 2.0**40, scores * 2**40, np.full((2, 4), np.nan)):
        with pytest.raises(ValueError, match="numbers"):
            model.predict({"x": wrong})
    with pytest.raises(ValueError, match="expected numbers"):
        model.predict({"x": scores.astype(str)})


def _one_by_one(tflite: bytes, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = IntegerModel(tflite)
    count = len(next(iter(features.values())))
    rows = [model.predict({name: values[row : row + 1] for name, values in features.items()}) for row in range(count)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("count", [2, 31, 32, 33, 100])
def test_predict_of_many_equals_one_at_a_time_bit_for_bit(integer_model: bytes, count: int, threads: int) -> None:
    images = models.images(count) * 3 - 1
    model = IntegerModel(integer_model, threads=threads)
    for _ in range(2):  # the first tells whether the model may be batched
        np.testing.assert_array_equal(
            model.predict({"image": images})["probabilities"],
            _one_by_one(integer_model, {"image": images})["probabilities"],
        )
    assert model.runs_batched


def test_threads_run_several_examples_and_never_one(integer_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for module in (interpreter, batched_interpreter):
        load = module.load
        monkeypatch.setattr(
            module, "load", lambda *given, load=load, threads=1: found.append(threads) or load(*given, threads=threads)
        )
    IntegerModel(integer_model, threads=3)
    assert found == [1, 3]


def test_predict_goes_one_at_a_time_when_the_model_has_a_state() -> None:
    layers = tf_keras.layers
    recurrent = models.chain((5, 3), layers.LSTM(4), layers.Dense(2, name="y"))
    features = {"x": np.random.default_rng(1).normal(size=(40, 5, 3)).astype(np.float32)}
    tflite = convert(recurrent, representative_dataset=[features["x"][:8]])
    model = IntegerModel(tflite)
    found = model.predict(features)
    for name, expected in _one_by_one(tflite, features).items():
        np.testing.assert_array_equal(found[name], expected)
    assert not model.runs_batched


def test_predict_goes_one_at_a_time_when_the_batch_size_is_built_into_the_model() -> None:
    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
    def mixing(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.reshape(tf.reshape(x, [2, 2]) @ [[1.0, 2.0], [3.0, 4.0]], [1, 4])}

    module = tf.Module()
    module.mixing = mixing
    converter = tf.lite.TFLiteConverter.from_concrete_functions([mixing.get_concrete_function()], module)
    features = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    model = IntegerModel(converter.convert())
    expected = (features["x"].reshape(3, 2, 2) @ [[1, 2], [3, 4]]).reshape(3, 4)
    np.testing.assert_array_equal(model.predict(features)["y"], expected)
    assert not model.runs_batched


@pytest.mark.parametrize("equal_at_first", [False, True])
def test_predict_goes_one_at_a_time_when_examples_at_once_would_see_each_other(equal_at_first: bool) -> None:
    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
    def over_all(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x - tf.reduce_max(x)}

    module = tf.Module()
    module.over_all = over_all
    converter = tf.lite.TFLiteConverter.from_concrete_functions([over_all.get_concrete_function()], module)
    features = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    model = IntegerModel(converter.convert())
    if equal_at_first:  # such examples tell nothing
        model.predict({"x": np.zeros((40, 4), np.float32)})
    np.testing.assert_array_equal(model.predict(features)["y"], np.tile([-3, -2, -1, 0], (3, 1)))
    assert not model.runs_batched


def test_output_limits_are_the_ends_of_the_range_also_behind_float_edges(integer_model: bytes) -> None:
    assert IntegerModel(integer_model).output_limits == {"probabilities": (0.0, 255 / 256)}
    floats = convert(models.trained_with_fake_quantization(), io_dtype="float32")
    assert IntegerModel(floats).output_limits == {"probabilities": (0.0, 255 / 256)}
