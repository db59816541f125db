import functools
import json
import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tf_keras
from sklearn.datasets import load_digits

from components.quantization import convert, quantize_model
from components.quantization.attribution.attribute import AttributionOptions, attribute
from components.quantization.attribution.codes import CodeCounts, Noise
from components.quantization.attribution.metrics import standard_error
from components.quantization.attribution.outputs import output_use
from components.quantization.attribution.report import Attribution
from components.quantization.conversion import flatbuffer
from components.quantization.interpreter import IntegerModel
from components.quantization.kernels import KernelInterpreter, real_values
from components.quantization.qat.quantize import in_floats

import small_models as models

pytestmark = pytest.mark.slow

layers = tf_keras.layers


@functools.lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.images[..., None].astype(np.float32) / 16, data.target


@functools.lru_cache(maxsize=1)
def _trained() -> tuple[tf_keras.Model, tf_keras.Model, bytes]:
    """A float model, its quantization-aware one and the integers."""
    tf_keras.utils.set_random_seed(1)
    images, labels = _digits()
    stack = [
        layers.InputLayer((8, 8, 1), name="image"),
        layers.Conv2D(8, 3, activation="relu", name="first"),
        layers.Conv2D(8, 3, activation="relu", name="second"),
        layers.Flatten(name="flatten"),
        layers.Dense(10, name="logits"),
    ]
    model = tf_keras.Sequential(stack)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(images[:1000], labels[:1000], batch_size=32, epochs=3, verbose=0)
    quantized = quantize_model(model)
    quantized.compile("adam", loss)
    quantized.fit(images[:1000], labels[:1000], batch_size=50, epochs=1, verbose=0)
    return model, quantized, convert(quantized, profile="cpu")


def _examples() -> list[tuple[Any, ...]]:
    images, labels = _digits()
    return [(images[1000:1120], labels[1000:1120]), ({"image": images[1120:1200]}, labels[1120:1200])]


@functools.lru_cache(maxsize=1)
def _found() -> Attribution:
    return attribute(*_trained(), _examples(), AttributionOptions(sensitivity=True))


def _right(logits: np.ndarray) -> np.ndarray:
    return (logits.argmax(1) == _digits()[1][1000:1200]).astype(float)


def _cross_entropy(logits: np.ndarray) -> float:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(1, keepdims=True)
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(200), _digits()[1][1000:1200]]
    return float(each.mean())


def _logits() -> dict[str, np.ndarray]:
    model, quantized, tflite = _trained()
    images = _digits()[0][1000:1200]
    found = {"float": model(images).numpy(), "fake-quant": quantized(images, training=False).numpy()}
    for kernels in ("default", "optimized", "reference"):
        found[f"integer {kernels}"] = IntegerModel(tflite, kernels).predict({"image": images})["logits"]  # type: ignore[arg-type]
    return found


def test_attribution_has_the_metrics_of_each_step_that_numpy_computes() -> None:
    logits = _logits()
    steps = {step.name: step for step in _found().steps}
    assert list(steps) == list(logits)
    for name, values in logits.items():
        assert steps[name].metrics["accuracy"] == pytest.approx(_right(values).mean())
        assert steps[name].metrics["loss"] == pytest.approx(_cross_entropy(values), rel=1e-4)
        agreeing = np.mean(values.argmax(1) == logits["float"].argmax(1))
        assert steps[name].agreement == {"logits": pytest.approx(agreeing)}
    assert steps["float"].metrics["accuracy"] > 0.7
    assert steps["float"].kernels == "Keras, float32"
    assert steps["integer reference"].kernels == "reference kernels"


def test_attribution_pairs_the_changes_by_example() -> None:
    logits = _logits()
    changes = {(change.start, change.end): change for change in _found().changes if change.metric == "accuracy"}
    assert list(changes) == [
        ("float", "fake-quant"),
        ("fake-quant", "integer default"),
        ("integer default", "integer optimized"),
        ("integer default", "integer reference"),
    ]
    for (start, end), change in changes.items():
        each = _right(logits[end]) - _right(logits[start])
        assert change.difference == pytest.approx(each.mean(), abs=1e-6)
        assert change.standard_error == pytest.approx(each.std(ddof=1) / math.sqrt(200), abs=1e-6)


def test_standard_error_counts_an_example_by_its_weight() -> None:
    # Mean (2*1 + 1*0 + 1*0) / 4 = 0.5; deviations 2*0.5, 0.5, 0.5: their squares 1.5, times 3/2, its root over 4.
    found = standard_error(np.array([1.0, 0.0, 0.0]), np.array([2.0, 1.0, 1.0]))
    assert found == pytest.approx(1.5 / 4)
    assert standard_error(np.array([1.0]), np.ones(1)) is None


def test_attribution_weights_examples_as_keras_does() -> None:
    model, quantized, tflite = _trained()
    images, labels = _digits()
    weights = np.linspace(0, 2, 60)
    model_of_weights = tf_keras.models.clone_model(model)
    model_of_weights.set_weights(model.get_weights())
    model_of_weights.compile("sgd", model.loss, weighted_metrics=["accuracy"])
    batch = (images[1000:1060], labels[1000:1060], weights)
    found = attribute(model_of_weights, quantized, tflite, [batch], AttributionOptions(kernels=("reference",)))
    right = (quantized(images[1000:1060], training=False).numpy().argmax(1) == labels[1000:1060]).astype(float)
    before = (model(images[1000:1060]).numpy().argmax(1) == labels[1000:1060]).astype(float)
    assert found.steps[1].metrics["accuracy"] == pytest.approx(np.average(right, weights=weights))
    change = next(change for change in found.changes if change.metric == "accuracy")
    assert change.difference == pytest.approx(np.average(right - before, weights=weights), abs=1e-6)
    assert change.standard_error == pytest.approx(standard_error(right - before, weights), abs=1e-6)


def test_attribution_takes_a_metric_of_the_user() -> None:
    def error_of_top(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return (logits.argmax(1) != labels).astype(float)

    options = AttributionOptions(metric=error_of_top, kernels=("optimized",))
    found = attribute(*_trained(), _examples(), options)
    assert [step.metrics["error_of_top"] for step in found.steps] == [
        pytest.approx(1 - _right(values).mean())
        for name, values in _logits().items()
        if name in ("float", "fake-quant", "integer optimized")
    ]
    assert all(change.standard_error is not None for change in found.changes)
    assert found.kernels.pairs == ()


def test_attribution_has_no_metrics_when_examples_have_no_labels() -> None:
    found = attribute(*_trained(), [_digits()[0][:5]], AttributionOptions(kernels=("optimized",)))
    assert [step.metrics for step in found.steps] == [{}, {}, {}]
    assert found.changes == ()
    assert found.layers


def test_layers_have_the_codes_that_the_interpreter_computes() -> None:
    _, quantized, tflite = _trained()
    images = _digits()[0][1000:1100]
    interpreter = KernelInterpreter(tflite, "optimized", keep_tensors=True)
    first = {layer.name: layer for layer in _found().layers}["first_relu"]
    tensor = next(one for one in interpreter.graph.tensors if one.name == first.tensor)
    codes = []
    for image in images:
        interpreter.run({"image": image[None]})
        codes.append(interpreter.codes(tensor)[0].astype(int))
    together = np.array(codes)
    assert first.saturation == pytest.approx(np.mean((together == -128) | (together == 127)))
    assert first.utilisation == pytest.approx(len(set(together.ravel().tolist())) / 256)
    # What the fake quantization behind it returns.
    ranged = quantized.get_layer("first")._outbound_nodes[0].layer
    while type(ranged).__name__ != "FakeQuantize":
        ranged = ranged._outbound_nodes[0].layer
    expected = tf_keras.Model(quantized.inputs, ranged.output)(images, training=False).numpy().astype(float)
    difference = real_values(together, tensor) - expected
    assert first.max_lsb == pytest.approx(np.abs(difference).max() / tensor.scale[0])
    assert first.sqnr_db == pytest.approx(10 * math.log10((expected**2).sum() / (difference**2).sum()))
    assert first.quantization_sqnr_db is not None
    assert 20 < first.quantization_sqnr_db < first.sqnr_db


def test_codes_are_counted_by_hand() -> None:
    tensor = _tensor(scale=0.5, zero_point=0)
    counts = CodeCounts(tensor)
    counts.add(np.array([[-128, -128, 0], [1, 2, 127]], np.int8))
    assert counts.saturation == pytest.approx(3 / 6)
    assert counts.span == 1.0
    # Parts of eight integers: -128..-121, ..., 0..7, ..., 120..127.
    assert counts.histogram == (2, *[0] * 15, 3, *[0] * 14, 1)
    assert math.isnan(counts.utilisation)  # of 6 values
    counts.add(np.zeros(250, np.int8))
    assert counts.utilisation == pytest.approx(5 / 256)
    noise = Noise()
    noise.add(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    assert noise.sqnr_db == pytest.approx(20.0)  # 25 over 0.25
    assert noise.largest == 0.5


@pytest.mark.parametrize("layer", ["first_relu", "second_relu", "logits_values"])
def test_a_corrupted_scale_is_located_as_the_first_diverging_layer(layer: str) -> None:
    model, quantized, tflite = _trained()
    whole = {one.name: one for one in _found().layers}
    assert _found().first_diverging is None
    # Of a layer with half the scale, what lies in the upper half of its range is cut off.
    broken = _with_scale_of(tflite, whole[layer].tensor, 0.5)
    found = attribute(model, quantized, broken, _examples(), AttributionOptions(kernels=("optimized",)))
    assert found.first_diverging is not None
    assert found.first_diverging.name == layer
    assert json.loads(found.to_json())["first_diverging"] == layer
    assert f"{layer} <- first diverging" in str(found)


def _with_scale_of(tflite: bytes, name: str, factor: float) -> bytes:
    model = flatbuffer.read_object(tflite)
    tensor = next(one for one in model.subgraphs[0].tensors if one.name.decode() == name)
    tensor.quantization.scale = [factor * scale for scale in tensor.quantization.scale]
    return flatbuffer.write_object(model)


def _tensor(scale: float, zero_point: int) -> flatbuffer.Tensor:
    return flatbuffer.Tensor(
        index=0,
        name="t",
        shape=(1, 3),
        dynamic=False,
        dtype="INT8",
        scale=(scale,),
        zero_point=(zero_point,),
        constant=None,
    )


def test_output_is_degenerate_when_its_predictions_are_constant_or_saturated() -> None:
    floats = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.2, 0.6, 0.2]])
    tensor = _tensor(scale=1 / 256, zero_point=-128)
    constant = output_use("y", tensor, np.full((3, 3), -128, np.int8), floats)
    assert any("is the same for every example" in finding for finding in constant.findings)
    one_class = output_use("y", tensor, np.array([[90, 1, 2], [80, 3, 0], [70, -90, 5]], np.int8), floats)
    assert one_class.findings == ("degenerate output: always predicts class 0, which the float model does not",)
    assert one_class.agreement == pytest.approx(1 / 3)
    saturated = output_use("y", _tensor(scale=0.001, zero_point=-128), np.full((3, 3), 127, np.int8), 1 + floats)
    assert saturated.clipped == 1.0
    assert any("saturated, 100.0% of its values" in finding for finding in saturated.findings)
    sound = output_use("y", tensor, np.rint(floats * 256 - 128).astype(np.int8), floats)
    assert sound.findings == ()
    assert sound.max_lsb <= 0.5


def test_the_small_head_is_flagged_when_two_share_a_range() -> None:
    x = tf_keras.Input((4,), name="x")
    heads = layers.Dense(4, use_bias=False, name="heads")
    kernel = np.diag([1.0, 1.0, 1000.0, 1000.0]).astype(np.float32)
    both = heads(x)
    small, large = (
        layers.Lambda(lambda v: v[:, :2], name="small")(both),
        layers.Lambda(lambda v: v[:, 2:], name="large")(both),
    )
    model = tf_keras.Model(x, {"small": small, "large": large})
    heads.set_weights([kernel])
    values = np.random.default_rng(1).uniform(-1, 1, (200, 4)).astype(np.float32)
    found = attribute(model, None, convert(model, representative_dataset=[values], profile="cpu"), [values])
    assert {one.name for one in found.outputs} == {"small", "large"}
    used = {one.name: one for one in found.outputs}
    assert used["small"].utilisation < 0.1
    assert used["large"].utilisation > 0.3
    assert used["small"].sqnr_db <= 0 < used["large"].sqnr_db
    assert [finding.split(";")[0].split(",")[0] for finding in found.findings if "uses" in finding] == [
        f"output 'small' uses {used['small'].span:.1%} of its integers"
    ]


def test_attribution_compares_with_the_float_model_when_there_is_no_other() -> None:
    model = _trained()[0]
    images, labels = _digits()
    tflite = convert(model, representative_dataset=[images[:100]], profile="cpu")
    found = attribute(model, None, tflite, [(images[1000:1050], labels[1000:1050])])
    assert [step.name for step in found.steps][:2] == ["float", "integer default"]
    assert found.compared_with == "float"
    assert [layer.name for layer in found.layers] == ["first", "second", "flatten", "output logits"]
    assert found.unmatched == ()
    assert all(layer.sqnr_db > 15 and layer.quantization_sqnr_db is None for layer in found.layers)


def test_reference_kernels_run_fewer_examples_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run = KernelInterpreter.run
    monkeypatch.setattr(KernelInterpreter, "run", lambda self, x: (ran.append(self.description), run(self, x))[1])
    options = AttributionOptions(layer_examples=1, reference_examples=130)
    found = attribute(*_trained(), _examples(), options)
    assert ran.count("reference kernels") == 130  # of batches of 120 and 80
    assert [step.name for step in found.steps] == ["float", "fake-quant", "integer default", "integer optimized"]
    examples = {(pair.first, pair.second): pair.examples for pair in found.kernels.pairs}
    assert examples == {("default", "optimized"): 200, ("default", "reference"): 130, ("optimized", "reference"): 130}
    assert found.kernels.examples == 200


def test_attribution_of_16_bits_compares_with_weights_alone_because_ranges_are_calibrated() -> None:
    tf_keras.utils.set_random_seed(1)
    images, labels = _digits()
    model = _trained()[0]
    quantized = quantize_model(model, "int16x8")
    quantized.compile("adam", model.loss)
    quantized.fit(images[:1000], labels[:1000], batch_size=50, epochs=1, verbose=0)
    tflite = convert(quantized, "int16x8", [images], profile="cpu")
    found = attribute(model, quantized, tflite, _examples(), AttributionOptions(kernels=("optimized",)))
    assert (found.compared_with, found.steps[1].name) == ("fake-quant weights",) * 2
    assert [layer.bits for layer in found.layers] == [16] * len(found.layers)
    assert found.first_diverging is None
    # Within a few steps of 2**-15 of the range, where half a step of 8 bits would be 128.
    assert all(layer.max_lsb < 16 and layer.sqnr_db > 75 for layer in found.layers)
    assert {"first_relu", "second_relu", "output logits"} <= {layer.name for layer in found.layers}
    # The trained ranges, which the file does not have, are used again behind it.
    before = quantized(images[:10], training=False).numpy()
    attribute(model, quantized, tflite, _examples(), AttributionOptions(kernels=("optimized",)))
    np.testing.assert_array_equal(quantized(images[:10], training=False).numpy(), before)
    with in_floats(quantized, activations_alone=True):
        assert not np.array_equal(quantized(images[:10], training=False).numpy(), before)


def test_attribution_is_json_and_a_picture() -> None:
    facts = json.loads(_found().to_json())
    assert facts["first_diverging"] is None
    assert [layer["name"] for layer in facts["layers"]] == [layer.name for layer in _found().layers]
    assert facts["kernels"]["kernels"]["reference"] == "reference kernels"
    assert [one["layer"] for one in facts["sensitivity"]] == [one.layer for one in _found().sensitivity]
    assert len(facts["sensitivity"]) == 3
    picture = ElementTree.fromstring(_found().to_svg())
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "Change of the metric"
    assert {layer.name for layer in _found().layers} <= set(texts)


def test_attribution_is_tables_when_printed() -> None:
    text = str(_found())
    for title in ("steps, of 200 examples", "layers, of 100 examples: built-in optimized kernels against fake-quant"):
        assert title in text
    assert "default - reference" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": []}, "examples: got none, expected at least one"),
        ({"examples": [np.zeros((1, 3))]}, "examples: input 'image' has shape"),
        (
            {"examples": [np.zeros((1, 8, 8, 1)), (np.zeros((1, 8, 8, 1)), [1])]},
            "batches with labels and batches without",
        ),
        (
            {"float_model": models.dense()},
            "the TFLite model has the inputs image \\(8, 8, 1\\), the Keras model x \\(3,\\); give the .tflite",
        ),
    ],
)
def test_attribute_raises_when_an_argument_is_wrong(arguments: dict[str, Any], message: str) -> None:
    model, quantized, tflite = _trained()
    with pytest.raises(ValueError, match=message):
        attribute(
            **{"float_model": model, "qat_model": quantized, "tflite": tflite, "examples": _examples(), **arguments}
        )


def test_attribute_raises_when_there_are_labels_and_no_metrics() -> None:
    model, quantized, tflite = _trained()
    bare = tf_keras.models.clone_model(model)
    with pytest.raises(ValueError, match="the float model is not compiled; compile it with the task's loss"):
        attribute(bare, quantized, tflite, _examples())


def test_options_name_all_that_is_wrong() -> None:
    with pytest.raises(
        ValueError,
        match="got fast, expected some of .*layer_examples: got 0.*reference_examples: got 0.*bound_lsb: got -1",
    ):
        AttributionOptions(kernels=("fast",), layer_examples=0, reference_examples=0, bound_lsb=-1)  # type: ignore[arg-type]
