"""Unknown dimensions of inputs: refused with the argument that fixes them, or fixed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from click.testing import CliRunner, Result

from components.quantization import convert, fix_input_shapes, plan, quantize_model
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.dense_function import dense_function
from components.quantization.input_shapes import fixed_shapes
from pipelines.__main__ import main

from small_models import chain

K = tf_keras.layers


def _segmentation() -> tf_keras.Model:
    up = (K.MaxPooling2D(), K.UpSampling2D(), K.Conv2D(2, 1, name="mask"))
    return chain((None, None, 3), K.Conv2D(4, 3, padding="same", activation="relu"), *up)


def _pooled() -> tf_keras.Model:
    return chain((None, None, 3), K.Conv2D(4, 3, activation="relu"), K.GlobalAveragePooling2D(), K.Dense(2, name="y"))


def _sequence() -> tf_keras.Model:
    return chain((None, 3), K.Conv1D(4, 3, activation="relu"), K.GlobalMaxPooling1D(), K.Dense(2, name="y"))


def _two_inputs() -> tf_keras.Model:
    image, age = K.Input((None, None, 3), name="x"), K.Input((1,), name="age")
    pooled = K.GlobalAveragePooling2D()(K.Conv2D(4, 3, activation="relu")(image))
    return tf_keras.Model([image, age], K.Dense(2, name="y")(K.Concatenate()([pooled, age])))


def _gru() -> tf_keras.Model:
    return chain((None, 3), K.GRU(2, name="gru"), K.Dense(2, name="y"))


def _features(model: tf_keras.Model, shape: tuple[int, ...], count: int = 60) -> dict[str, Any]:
    """Random numbers, 0..1; a fixed shape for "x"."""
    generator = np.random.default_rng(1)
    shapes = {"x": shape, "age": (1,)}
    return {name: generator.random((count, *shapes[name]), np.float32) for name in model.input_names}


def _require_equal(tflite: bytes, model: tf_keras.Model, features: dict[str, Any]) -> None:
    """Checks that a file is static, and computes what the float model does at that size, but for 3 % of its range."""
    assert not any(tensor.dynamic for tensor in flatbuffer.read_subgraphs(tflite)[0].tensors)
    interpreter = tf.lite.Interpreter(model_content=tflite)
    for detail in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert -1 not in detail["shape_signature"]
    runner = interpreter.get_signature_runner()
    expected = model(features if len(features) > 1 else features["x"]).numpy()
    for index in range(8):
        (found,) = runner(**{name: values[index : index + 1] for name, values in features.items()}).values()
        np.testing.assert_allclose(found[0], expected[index], atol=0.03 * np.ptp(expected))


@pytest.mark.parametrize(
    ("known", "given", "message"),
    [
        (
            {"x": (None, 3), "image": (None, None, 1), "age": (1,)},
            None,
            "input 'x' has unknown dimensions, (N, 3); input 'image' has unknown dimensions, (N, N, 1); pass"
            " input_shapes={'x': (N, 3), 'image': (N, N, 1)}, or to `convert` --input-shape x=N,3 --input-shape"
            " image=N,N,1, with a number for each N",
        ),
        ({"x": (None, 3)}, {"x": (5, 4)}, "input 'x': got (5, 4), expected (N, 3)"),
        ({"x": (None, 3)}, {"x": (5,)}, "input 'x': got (5,), expected (N, 3)"),
        ({"x": (None, 3)}, (0, 3), "input 'x': got (0, 3), expected (N, 3)"),
        ({"x": None}, None, "input 'x' has unknown dimensions, (N, ...)"),
        ({"x": (3,)}, {"y": (5,)}, "got one for 'y', expected inputs of the model; the shapes of x are known, leave"),
        ({"x": (None,), "age": (1,)}, (5,), "got (5,) for 2 inputs, expected a shape by name; input 'x' has unknown"),
        (
            {"x": (None, 3), "age": (1,)},
            {"y": (5,), "age": (2,)},
            "got one for 'y', expected inputs of the model; input 'x' has unknown dimensions, (N, 3); input 'age': got"
            " (2,), expected (1,); pass",
        ),
    ],
)
def test_fixed_shapes_names_all_that_is_wrong_and_the_argument(known: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        fixed_shapes(known, given)


def test_fixed_shapes_takes_any_rank_when_none_is_known() -> None:
    assert fixed_shapes({"x": None, "y": (2,)}, {"x": [4, 3]}) == {"x": (4, 3), "y": (2,)}


def test_dense_function_has_static_outputs_when_shapes_are_given() -> None:
    function = dense_function(_segmentation(), (8, 12, 3))
    assert function.inputs["x"].shape == (1, 8, 12, 3)
    assert function.output_tensors["mask"].shape == (1, 8, 12, 2)


@pytest.mark.slow
@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("build", "shape"),
    [(_segmentation, (8, 12, 3)), (_pooled, (9, 7, 3)), (_sequence, (20, 3)), (_two_inputs, (9, 7, 3))],
)
def test_convert_computes_the_same_at_the_size_that_is_given(
    build: Callable[[], tf_keras.Model], shape: tuple[int, ...], saved: bool, tmp_path: Path
) -> None:
    model = build()
    features = _features(model, shape)
    if saved:
        model.save(tmp_path / "saved", save_format="tf")
    source = tmp_path / "saved" if saved else model
    tflite = convert(source, "full_int8", [features], io_dtype="float32", input_shapes={"x": shape})
    _require_equal(tflite, model, features)


@pytest.mark.slow
@pytest.mark.parametrize("build", [_segmentation, _pooled, _sequence, _two_inputs])
def test_quantize_model_trains_at_any_size_and_converts_at_the_one_given(
    build: Callable[[], tf_keras.Model],
) -> None:
    model = build()
    quantized = quantize_model(model)
    quantized.compile(tf_keras.optimizers.SGD(1e-6), "mse")
    for size in (9, 14):  # of each dimension
        shape = tuple(size if length is None else length for length in model.get_layer("x").input_shape[0][1:])
        features = _features(model, shape)
        inputs = features if len(features) > 1 else features["x"]
        quantized.fit(inputs, np.asarray(model(inputs)), epochs=2, verbose=0)
    tflite = convert(quantized, io_dtype="float32", input_shapes={"x": shape})
    _require_equal(tflite, quantized, features)


def test_plan_names_what_fixes_the_shape_when_it_cannot_be_proved() -> None:
    deep = [layer for _ in range(4) for layer in (K.Conv2D(4, 3), K.ReLU(), K.MaxPooling2D())]
    model = chain((None, None, 3), *deep, K.Conv2D(4, 3, activation="relu"))  # 32 becomes 15, 6, 2, nothing
    with pytest.raises(ValueError, match=r"with 32 for each, x \(None, None, 3\): .*negative.*with fix_input_shapes"):
        plan(model)
    fixed = fix_input_shapes(model, (80, 80, 3))
    assert fixed.output_shape == (None, 1, 1, 4)  # 39, 18, 8, 3, 1
    assert not plan(fixed).blockers


def test_fix_input_shapes_lets_recurrent_layers_unroll() -> None:
    model = _gru()
    assert [row.name for row in plan(model, untrainable="fail").blockers] == ["gru"]
    fixed = fix_input_shapes(model, {"x": (5, 3)})
    assert [row.action for row in plan(fixed).layers if row.name == "gru"] == ["rewrite", "calibrate"]
    np.testing.assert_array_equal(fixed.get_weights()[0], model.get_weights()[0])
    assert model.input_shape == (None, None, 3)  # is left alone


def test_fix_input_shapes_returns_the_model_itself_when_all_is_known() -> None:
    model = chain((4, 3), K.Dense(2))
    assert fix_input_shapes(model) is model


def test_fix_input_shapes_raises_when_too_little_is_left_for_a_layer() -> None:
    with pytest.raises(ValueError, match=r"cannot be built for inputs of \{'x': \(2, 3\)\}: .*give other input_shapes"):
        fix_input_shapes(_sequence(), (2, 3))


def _command(model: Path, directory: Path, *more: str) -> Result:
    examples = ("--examples", str(directory / "examples.npz"), "-o", str(directory / "out"), "--io-dtype", "float32")
    return CliRunner().invoke(main, ["convert", str(model), *examples, *more])


@pytest.mark.slow
@pytest.mark.parametrize("build", [_segmentation, _gru])
def test_convert_command_fixes_the_shape_that_it_is_given(build: Callable[[], tf_keras.Model], tmp_path: Path) -> None:
    model = build()
    shape = (5, 3) if len(model.input_shape) == 3 else (8, 12, 3)
    features = _features(model, shape)
    np.savez(tmp_path / "examples.npz", **features)
    model.save(tmp_path / "model.keras")
    refused = _command(tmp_path / "model.keras", tmp_path)
    assert refused.exit_code == 2
    assert "--input-shape x=N," in refused.output
    assert not (tmp_path / "out").exists()
    result = _command(tmp_path / "model.keras", tmp_path, "--input-shape", f"x={','.join(map(str, shape))}")
    assert result.exit_code == 0, result.output
    _require_equal((tmp_path / "out" / "tflite").read_bytes(), model, features)


@pytest.mark.slow
def test_convert_command_takes_a_shape_without_name_for_a_saved_model(tmp_path: Path) -> None:
    model = _sequence()
    model.save(tmp_path / "saved", save_format="tf")
    features = _features(model, (20, 3))
    np.savez(tmp_path / "examples.npz", **features)
    result = _command(tmp_path / "saved", tmp_path, "--input-shape", "20,3")
    assert result.exit_code == 0, result.output
    _require_equal((tmp_path / "out" / "tflite").read_bytes(), model, features)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("x=8,wide",), "--input-shape x=8,wide: got something else than numbers, expected NAME=H,W,C"),
        (("x=8", "x=9"), "--input-shape x=9: got a second shape for x, expected one"),
        (("8", "x=9"), "--input-shape: got a shape without name and shapes by name"),
    ],
)
def test_convert_command_ends_with_2_when_a_shape_is_no_shape(texts: Any, message: str, tmp_path: Path) -> None:
    result = _command(tmp_path / "model.keras", tmp_path, *(part for text in texts for part in ("--input-shape", text)))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
