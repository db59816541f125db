"""Models cut before what integers cannot compute: backbone and head, and what the contract says of the head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from click.testing import CliRunner, Result

from components.quantization import convert, cut, plan, quantize_model
from components.quantization.contract.build import Knowledge, build_contract
from components.quantization.contract.postprocessing import postprocessing
from components.quantization.contract.schema import Contract
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import NotIntegerOnlyError
from pipelines.__main__ import main

K = tf_keras.layers
_FEATURES = 12
# Corners of four boxes; the first two overlap in 9 of 11 parts.
_ANCHORS = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 30, 30], [40, 0, 50, 10]], np.float32)


def _detector(tail: Callable[[Any, Any], Any]) -> tf_keras.Model:
    """Boxes that move by at most 0.6 and scores of any order, each by one Dense layer of 12 features, and a tail."""
    generator = np.random.default_rng(1)
    features = K.Input((_FEATURES,), name="features")
    corners = K.Dense(16, name="corners")
    scores = K.Dense(4, name="scores")
    boxes = K.Reshape((4, 4), name="boxes")(corners(features))
    model = tf_keras.Model(features, tail(boxes, scores(features)), name="detector")
    corners.set_weights([generator.uniform(-0.05, 0.05, (_FEATURES, 16)), _ANCHORS.ravel()])
    scores.set_weights([generator.normal(size=(_FEATURES, 4)), np.zeros(4)])
    return model


def _suppressed(boxes: Any, scores: Any) -> Any:
    kept = tf.image.non_max_suppression(boxes[0], scores[0], 3, score_threshold=-100.0)
    return [tf.gather(boxes[0], kept), tf.gather(scores[0], kept)]


def _angles(boxes: Any, scores: Any) -> Any:
    return [K.Lambda(tf.math.atan, name="angles")(scores), boxes]


def _features(count: int = 64) -> np.ndarray:
    return np.random.default_rng(2).random((count, _FEATURES), np.float32)


def _bounds(model: tf_keras.Model, tflite: bytes) -> dict[str, float]:
    """How far each output of the integer backbone can be from that of the float one, for features in 0..1.

    With the scales s of input, weights and output: half a step of the input times the sum of |w|, half a step of each
    weight times the sum of the features, half a step of the bias (which is s_input * s_weights), half a step of the
    output; 1 % for roundings of floats and of the kernel's multiplier.
    """
    graph = flatbuffer.read_subgraphs(tflite)[0]
    interpreter = tf.lite.Interpreter(model_content=tflite).get_signature_runner()
    (s_input, _) = interpreter.get_input_details()["features"]["quantization"]
    bounds = {}
    for name, layer in (("boxes", "corners"), ("scores", "scores")):
        kernel = model.get_layer(layer).get_weights()[0]
        (s_weights,) = next(
            graph.tensors[op.inputs[1]].scale
            for op in graph.ops
            if op.code == "FULLY_CONNECTED" and graph.tensors[op.inputs[1]].shape[0] == kernel.shape[1]
        )
        (s_output, _) = interpreter.get_output_details()[name]["quantization"]
        of_input = s_input / 2 * np.abs(kernel).sum(0).max()
        of_weights = s_weights / 2 * _FEATURES * (1.0 + s_input / 2)
        bounds[name] = 1.01 * (of_input + of_weights + s_input * s_weights / 2 + s_output / 2)
    return bounds


def _real_outputs(tflite: bytes, contract: Contract, features: np.ndarray) -> dict[str, np.ndarray]:
    """What a client has of one example: integers by the contract, run, dequantized by the contract."""
    runner = tf.lite.Interpreter(model_content=tflite).get_signature_runner()
    return contract.dequantize(runner(**contract.quantize_raw({"features": features})))


def _require_head_computes(
    head: Callable[[dict[str, np.ndarray]], list[np.ndarray]],
    tflite: bytes,
    contract: Contract,
    whole: tf_keras.Model,
    bounds: dict[str, float],
) -> None:
    """Checks integers, then the head, against the whole model, wherever the order of the scores is certain."""
    compared = 0
    firsts = set()
    ranked = tf_keras.Model(whole.inputs, whole.get_layer("scores").output)
    for index, example in enumerate(_features()):
        scores = np.sort(ranked(example[None]).numpy()[0])
        if np.diff(scores).min() <= 2 * bounds["scores"]:
            continue
        boxes, kept_scores = head(_real_outputs(tflite, contract, example[None]))
        expected = [value.numpy() for value in whole(example[None])]
        assert boxes.shape == (3, 4), index  # one of the overlapping two is suppressed
        np.testing.assert_allclose(boxes, expected[0], rtol=0, atol=bounds["boxes"])
        np.testing.assert_allclose(kept_scores, expected[1], rtol=0, atol=bounds["scores"])
        firsts.add(int(np.rint(boxes[0, 0] / 10)))
        compared += 1
    assert compared > 20
    assert len(firsts) == 3  # which box comes first depends on the example


def _of_keras(head: tf_keras.Model) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    return lambda real: [value.numpy() for value in head([real[name] for name in head.input_names])]


def test_cut_gives_two_models_that_compute_the_same_and_leaves_the_model_alone() -> None:
    model = _detector(_suppressed)
    parts = cut(model, ["boxes", "scores"])
    assert parts.backbone.input_names == ["features"]
    assert parts.backbone.output_names == ["boxes", "scores"]
    assert parts.head.input_names == ["boxes", "scores"]
    assert parts.head.output_names == model.output_names
    assert [layer.name for layer in parts.backbone.layers] == ["features", "corners", "boxes", "scores"]
    example = _features(1)
    outputs = parts.backbone(example)
    np.testing.assert_allclose(outputs[1], example @ model.get_layer("scores").get_weights()[0], rtol=1e-5)
    for found, expected in zip(parts.head(outputs), model(example), strict=True):
        np.testing.assert_array_equal(found, expected)
    parts.backbone.get_layer("scores").set_weights([np.zeros((_FEATURES, 4)), np.zeros(4)])
    assert model.get_layer("scores").get_weights()[0].any()
    assert model.get_layer("boxes").output is not None  # which a layer with a second call refuses


@pytest.mark.parametrize(
    ("at", "messages"),
    [
        (["boxs", "scores"], ["got 'boxs', which is no layer, expected one such as boxes"]),
        (["boxes", "boxes", "anchor"], ["got 'boxes' 2 times, expected it once", "got 'anchor', which is no layer"]),
        (["features"], ["got 'features', which is no layer"]),
        ([], ["got no layer, expected at least one"]),
        (["scores"], ["the path features -> corners -> boxes -> ", " leads around scores; cut it too"]),
        (["boxes", "scores", "corners"], ["nothing behind the cut takes corners; leave it out"]),
        (["corners", "boxes"], ["the path features -> scores -> ", "nothing behind the cut takes corners"]),
    ],
)
def test_cut_names_all_that_is_wrong(at: list[str], messages: list[str]) -> None:
    with pytest.raises(ValueError, match="cut of model 'detector': ") as raised:
        cut(_detector(_suppressed), at)
    for message in messages:
        assert message in str(raised.value)


def test_cut_shortens_a_long_path() -> None:
    inputs = values = tf_keras.Input((4,), name="x")
    for number in range(9):
        values = K.ReLU(name=f"relu{number}")(values)
    side = K.Dense(4, name="side")(inputs)
    model = tf_keras.Model(inputs, K.Add(name="sum")([values, side]))
    with pytest.raises(ValueError, match=r"path x -> relu0 -> relu1 -> \.\.\. -> relu7 -> relu8 -> sum leads around"):
        cut(model, ["side"])


def test_cut_refuses_layers_that_are_called_twice_or_have_several_outputs() -> None:
    inputs = tf_keras.Input((4, 3), name="x")
    shared = K.Dense(3, name="shared")
    sequence, *state = K.LSTM(3, return_sequences=True, return_state=True, name="lstm")(shared(shared(inputs)))
    model = tf_keras.Model(inputs, [sequence, *state])
    with pytest.raises(ValueError, match="'shared', which is called 2 times.*'lstm', which has 3 outputs, expected a"):
        cut(model, ["shared", "lstm"])


def test_cut_takes_an_output_as_it_is_and_one_inside_a_nested_model() -> None:
    image = tf_keras.Input((8,), name="image")
    inside = tf_keras.Input((8,), name="inside")
    base = tf_keras.Model(inside, K.Dense(3, name="out")(K.Dense(4, name="features")(inside)), name="base")
    label = K.Dense(2, name="label")(image)
    model = tf_keras.Model(image, {"label": label, "angle": tf.math.atan(base(image))})
    whole = cut(model, ["label", "base"])
    assert [layer.name for layer in whole.backbone.layers] == ["image", "label", "base"]
    parts = cut(model, ["label", "base/features"])
    assert parts.backbone.output_names == ["label", "base/features"]
    values = np.random.default_rng(1).random((3, 8), np.float32)
    found, expected = parts.head(parts.backbone(values)), model(values)
    assert sorted(found) == ["angle", "label"]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    assert postprocessing(parts.head).results["label"] == "label"


def test_cut_takes_a_keras3_model() -> None:
    inputs = keras.Input((4,), name="x")
    scores = keras.layers.Dense(3, name="scores")(inputs)
    parts = cut(keras.Model(inputs, keras.ops.exp(scores)), ["scores"])
    np.testing.assert_allclose(parts.head(np.array([[0.0, 1.0, 2.0]], np.float32)), [[1.0, np.e, np.e**2]], rtol=1e-6)


def test_cut_is_refused_when_a_mask_would_have_to_pass() -> None:
    words = tf_keras.Input((4,), dtype="int32", name="words")
    values = K.Embedding(5, 3, mask_zero=True, embeddings_initializer="normal", name="embedding")(words)
    model = tf_keras.Model(words, K.GlobalAveragePooling1D(name="mean")(values))
    with pytest.raises(ValueError, match="step 'cut at embedding' would change what it computes"):
        cut(model, ["embedding"])


@pytest.mark.slow
def test_detector_is_refused_whole_and_equals_the_float_one_when_cut() -> None:
    model = _detector(_suppressed)
    with pytest.raises(NotIntegerOnlyError, match="cut the model before it") as raised:
        convert(model, representative_dataset=[_features()])
    assert "NON_MAX_SUPPRESSION_V4" in {offender.op for offender in raised.value.audit.offenders}
    parts = cut(model, ["boxes", "scores"])
    tflite = convert(parts.backbone, representative_dataset=[_features()])
    contract = build_contract(tflite).contract
    _require_head_computes(_of_keras(parts.head), tflite, contract, model, _bounds(model, tflite))


@pytest.mark.slow
def test_detector_equals_its_quantization_aware_model_to_a_step_when_cut() -> None:
    parts = cut(_detector(_suppressed), ["boxes", "scores"])
    assert plan(parts.backbone).coverage == 1.0
    quantized = quantize_model(parts.backbone)
    quantized.compile(tf_keras.optimizers.SGD(1e-4), "mse")
    quantized.fit(_features(), [value.numpy() for value in parts.backbone(_features())], epochs=4, verbose=0)
    tflite = convert(quantized)
    contract = build_contract(tflite).contract
    whole = tf_keras.Model(quantized.inputs, parts.head(quantized.outputs))
    steps = {entry.name: 1.01 * entry.scale for entry in contract.outputs if entry.scale is not None}
    _require_head_computes(_of_keras(parts.head), tflite, contract, whole, steps)
    # Cutting the trained one again, as the command does, gives the same backbone.
    again = convert(cut(whole, ["boxes", "scores"]).backbone)
    for example in _features(8):
        found, expected = (_real_outputs(file, contract, example[None]) for file in (again, tflite))
        assert np.array_equal(found["boxes"], expected["boxes"])
        assert np.array_equal(found["scores"], expected["scores"])


@pytest.mark.slow
def test_op_that_tflite_lacks_is_left_to_the_head_when_cut() -> None:
    model = _detector(_angles)
    with pytest.raises(ValueError, match="TensorFlow's converter refuses the model: .*tf.Atan"):
        convert(model, representative_dataset=[_features()])
    parts = cut(model, ["boxes", "scores"])
    tflite = convert(parts.backbone, representative_dataset=[_features()])
    contract = build_contract(tflite).contract
    for example in _features(8):
        real = _real_outputs(tflite, contract, example[None])
        found, expected = parts.head([real["boxes"], real["scores"]])[0], model(example[None])[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=_bounds(model, tflite)["scores"])  # its slope is 1


def test_postprocessing_names_layers_classes_and_constants() -> None:
    found = postprocessing(cut(_detector(_angles), ["boxes", "scores"]).head)
    assert found.sources == ("boxes", "scores")
    assert found.results == {"angles": "angles", "boxes": "boxes"}
    assert [(step.op, step.output) for step in found.steps] == [("Lambda", "angles")]
    steps = postprocessing(cut(_detector(_suppressed), ["boxes", "scores"]).head).steps
    described = next(step.description for step in steps if step.op == "tf.image.non_max_suppression")
    assert described.endswith(", 3, score_threshold=-100.0) -> int32 [?]")


def test_postprocessing_describes_layers_with_weights_and_settings() -> None:
    inputs = tf_keras.Input((4,), name="x")
    weighted = K.Dense(2, activation="relu", name="weighted")(K.Dense(3, name="last")(inputs))
    model = tf_keras.Model(inputs, weighted + np.arange(2, dtype=np.float32))
    dense, add = postprocessing(cut(model, ["last"]).head).steps
    assert dense.description.startswith("Dense(last) with units=2, activation='relu', use_bias=True")
    assert dense.description.endswith("-> float32 [?, 2]; 2 weights in the reference")
    assert add.description == "tf.__operators__.add(weighted, [0.0, 1.0]) -> float32 [?, 2]"


@pytest.mark.slow
def test_build_contract_raises_when_the_head_takes_what_is_no_output() -> None:
    parts = cut(_detector(_suppressed), ["boxes", "scores"])
    other = tf_keras.Model(parts.backbone.inputs, parts.backbone.outputs[:1])
    tflite = convert(other, representative_dataset=[_features()])
    with pytest.raises(ValueError, match=r"postprocessing: got sources scores, expected outputs out of \['boxes'\]"):
        build_contract(tflite, Knowledge(postprocessing=postprocessing(parts.head)))


def _command(directory: Path, *more: str) -> Result:
    arguments = ["convert", directory / "model.keras", "--examples", directory / "examples.npz", *more]
    return CliRunner().invoke(main, [*map(str, arguments), "-o", str(directory / "out")])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    _detector(_suppressed).save(tmp_path / "model.keras")
    np.savez(tmp_path / "examples.npz", features=_features())
    return tmp_path


@pytest.mark.slow
def test_convert_command_writes_the_head_and_what_the_client_does(saved: Path) -> None:
    result = _command(saved, "--cut", "boxes", "--cut", "scores")
    assert result.exit_code == 0, result.output
    assert "left to the client: head, of boxes, scores" in result.output
    out = saved / "out"
    text = (out / "io_contract.json").read_text()
    contract = Contract.from_json(text)
    assert contract.to_json() == text
    behind = json.loads(text)["postprocessing"]
    assert behind["sources"] == ["boxes", "scores"]
    assert "tf.image.non_max_suppression" in {step["op"] for step in behind["steps"]}
    assert "Of the real values of boxes, scores the client then computes" in (out / "io_contract.h").read_text()
    serve = tf.saved_model.load(str(out / behind["reference"])).signatures["serving_default"]
    model = tf_keras.models.load_model(saved / "model.keras", compile=False)
    names = model.output_names
    assert sorted(behind["results"]) == sorted(names)

    def head(real: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = serve(**{name: tf.constant(value) for name, value in real.items()})
        return [found[name].numpy() for name in names]

    tflite = (out / "tflite").read_bytes()
    _require_head_computes(head, tflite, contract, model, _bounds(model, tflite))
    checked = CliRunner().invoke(main, ["selftest", str(out)])
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cut", "boxs"], "got 'boxs', which is no layer, expected one such as boxes"),
        (["--cut", "boxes", "--eval-examples", "some.npz"], "--cut: got --eval-examples too"),
    ],
)
def test_convert_command_ends_with_2_when_the_cut_is_wrong(saved: Path, arguments: list[str], message: str) -> None:
    result = _command(saved, *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not (saved / "out").exists()
