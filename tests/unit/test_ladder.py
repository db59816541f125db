import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import convert, quantize_model
from components.quantization.autograph import leave_libraries_alone
from components.quantization.interpreter import IntegerModel
from components.quantization.qat import ladder
from components.quantization.qat.calibration import calibrate
from components.quantization.qat.freezing import quantizers
from components.quantization.qat.ladder import Judge, LadderOptions, receipts_json
from components.quantization.qat.layers import QuantizedWeights
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.sensitivity import Sensitivity, sensitivities, worst
from components.quantization.qat.splits import sample_batches
from components.quantization.qat.training import QuantizationAwareTraining, TrainedModels
from components.quantization.schemes import QuantizationScheme, load_scheme

pytestmark = pytest.mark.long

layers = tf_keras.layers


@pytest.fixture(autouse=True, scope="module")
def _quick() -> None:
    leave_libraries_alone()


def _dataset(seed: int | None) -> tf.data.Dataset:
    random = np.random.default_rng(3)
    centres = random.normal(size=(4, 6, 6, 2)).astype(np.float32)
    labels = np.arange(96) % 4
    images = centres[labels] + random.normal(scale=0.5, size=(96, 6, 6, 2)).astype(np.float32)
    rows = tf.data.Dataset.from_tensor_slices(({"x": images}, labels))
    return (rows if seed is None else rows.shuffle(96, seed=seed)).batch(16)


def _model() -> tf_keras.Model:
    model = tf_keras.Sequential(
        [
            layers.InputLayer((6, 6, 2), name="x"),
            layers.Conv2D(6, 3, use_bias=False, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(6, 3, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax", name="y"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _climbed(
    judge: Judge,
    profile: str = "cpu",
    scheme: str | QuantizationScheme = "full_int8",
    build: Any = _model,
    **knobs: Any,
) -> TrainedModels:
    parameters = TrainingParameters(strategy="auto", float_epochs=2, qat_epochs=1, batch_size=16, **knobs)
    training = QuantizationAwareTraining(_dataset, _dataset, parameters)
    return training.run(build, load_scheme(scheme), ladder=LadderOptions(judge=judge, profile=profile))


def _never(integer: Any, parent: Any) -> tuple[bool, tuple[str, ...]]:
    return False, ("never",)


def _after(refusals: int) -> Judge:
    """Accepts a rung after so many others; the first thing that it is asked is whether it knows the metrics."""
    asked = []

    def judge(integer: Any, parent: Any) -> tuple[bool, tuple[str, ...]]:
        asked.append(integer)
        return len(asked) - 1 > refusals, (f"asked {len(asked) - 1} times",)

    return judge


@functools.cache
def _climbed_after(refusals: int) -> TrainedModels:
    return _climbed(_after(refusals))


@pytest.mark.parametrize(("refusals", "rung"), [(0, "ptq"), (1, "selective"), (3, "mixed")])
def test_ladder_stops_at_the_first_rung_that_is_good_enough(refusals: int, rung: str) -> None:
    trained = _climbed_after(refusals)
    assert trained.rung == rung
    taken = [receipt.rung for receipt in trained.receipts]
    assert taken == ["float", "ptq", "selective", "qat", "mixed"][: refusals + 2]
    assert [receipt.accepted for receipt in trained.receipts] == [False] * (refusals + 1) + [True]
    assert trained.scheme.name == ("int16x8" if rung == "mixed" else "full_int8")


def test_receipts_are_those_of_the_integer_model() -> None:
    trained = _climbed_after(0)
    (receipt,) = [each for each in json.loads(receipts_json(trained.receipts)) if each["rung"] == "ptq"]
    tflite = convert(trained.quantized_model, trained.scheme, profile="cpu")
    assert receipt["size_bytes"] == len(tflite)
    assert receipt["seconds"] > 0
    assert receipt["example_ms"] > 0
    features, labels = next(_dataset(None).unbatch().batch(96).as_numpy_iterator())
    outputs = IntegerModel(tflite).predict(features)["y"]
    assert receipt["metrics"]["accuracy"] == pytest.approx(float(np.mean(outputs.argmax(-1) == labels)))
    floats = trained.float_model.predict(features["x"], verbose=0)
    assert receipt["metrics"]["agreement"] == float(np.mean(outputs.argmax(-1) == floats.argmax(-1)))
    likelihood = np.log(np.clip(outputs[np.arange(96), labels] / outputs.sum(-1), 1e-7, 1))
    assert receipt["metrics"]["loss"] == pytest.approx(-float(np.mean(likelihood)), rel=1e-4)


def test_ptq_leaves_the_weights_of_the_float_model_and_covers_what_it_saw() -> None:
    parameters = TrainingParameters(strategy="ptq", float_epochs=1, batch_size=16, calibration_examples=20)
    trained = QuantizationAwareTraining(_dataset, _dataset, parameters).run(_model, load_scheme("full_int8"))
    assert (trained.rung, trained.receipts) == ("ptq", ())
    floats = [weights for weights in trained.float_model.get_weights() if weights.ndim > 1]
    kept = [weights for weights in trained.quantized_model.get_weights() if weights.ndim > 1]
    assert len(kept) == len(floats) == 3
    for one, other in zip(floats, kept, strict=True):
        np.testing.assert_array_equal(one, other)
    seen = np.concatenate([batch["x"] for batch in sample_batches(_dataset, 96, 20, 16, parameters.seed)])
    assert len(seen) == 20
    first = quantizers(trained.quantized_model)[0]
    assert float(first.minimum) == seen.min()
    assert float(first.maximum) == seen.max()


def test_selective_rung_trains_the_worst_layers_alone() -> None:
    trained = _climbed_after(1)
    changed = []
    for layer in trained.quantized_model.layers:
        if isinstance(layer, QuantizedWeights):
            kernel = trained.float_model.get_layer(layer.name.removesuffix("_values")).get_weights()[0]
            changed.append(not np.array_equal(kernel, layer.get_weights()[0]))
    assert len(changed) == 3
    assert sum(changed) == 1  # at most half of three layers
    assert all(layer.trainable for layer in trained.quantized_model._flatten_layers())


def test_mixed_rung_is_left_out_when_the_target_cannot_run_it_and_the_least_loss_is_taken() -> None:
    trained = _climbed(_never, profile="edge_tpu")
    receipts = {receipt.rung: receipt for receipt in trained.receipts}
    assert receipts["mixed"].skipped
    assert "target 'edge_tpu' cannot run scheme 'int16x8'" in receipts["mixed"].reasons[0]
    losses = {rung: receipts[rung].metrics["loss"] for rung in ("ptq", "selective", "qat")}
    assert trained.rung == min(losses, key=lambda rung: losses[rung])


def test_ladder_takes_the_best_of_the_others_when_a_rung_cannot_be_made() -> None:
    def sloped() -> tf_keras.Model:
        stack = [layers.InputLayer((6, 6, 2), name="x"), layers.PReLU(name="slope"), layers.Flatten()]
        model = tf_keras.Sequential([*stack, layers.Dense(4, activation="softmax", name="y")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    trained = _climbed(_never, build=sloped)
    receipts = {receipt.rung: receipt for receipt in trained.receipts}
    assert receipts["mixed"].skipped
    assert receipts["mixed"].scheme == "int16x8"
    assert receipts["mixed"].seconds > 0
    assert receipts["mixed"].reasons[0].startswith("could not be made: TensorFlow's converter refuses the model: ")
    losses = {rung: receipts[rung].metrics["loss"] for rung in ("ptq", "selective", "qat")}
    assert trained.rung == min(losses, key=lambda rung: losses[rung])


def test_ladder_raises_when_no_rung_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> bytes:
        raise ValueError("no kernel")

    monkeypatch.setattr(ladder.conversion, "convert", refuse)
    with pytest.raises(
        ValueError, match=r"no rung of the ladder gave an integer model \(ptq: could not be made: no ker"
    ):
        _climbed(_never)


def test_mixed_rung_gives_the_worst_layers_more_bits_when_weights_have_four() -> None:
    trained = _climbed(_after(3), scheme="int4_weights")
    assert trained.rung == "mixed"
    bits = [trained.scheme.weight_bits_of(name) for name in ("first", "second", "y")]
    assert sorted(bit for bit in bits if bit) == [4, 4, 8]
    convert(trained.quantized_model, trained.scheme, profile="cpu")


def test_mixed_rung_has_16_bits_everywhere_when_single_layers_had_them() -> None:
    scheme = QuantizationScheme(name="mine", overrides=(("^y", "int16_activations"), ("^second$", "skip")))
    trained = _climbed(_after(3), scheme=scheme)
    assert trained.rung == "mixed"
    assert (trained.scheme.name, trained.scheme.overrides) == ("int16x8", (("^second$", "skip"),))
    assert [receipt.scheme for receipt in trained.receipts[1:]] == ["mine", "mine", "mine", "int16x8"]


def test_gates_on_unknown_metrics_are_refused_before_anything_is_trained() -> None:
    def judge(integer: Any, parent: Any) -> tuple[bool, tuple[str, ...]]:
        assert set(integer) == {"loss", "accuracy", "agreement", "example_count"}
        raise ValueError("no metric 'recall'")

    with pytest.raises(ValueError, match="no metric 'recall'"):
        _climbed(judge)


def test_auto_needs_to_know_when_a_model_is_good_enough() -> None:
    training = QuantizationAwareTraining(_dataset, _dataset, TrainingParameters(strategy="auto"))
    with pytest.raises(ValueError, match="pass ladder=LadderOptions"):
        training.run(_model, load_scheme("full_int8"))


def test_ladder_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    parameters = TrainingParameters(strategy="auto", float_epochs=1, qat_epochs=1, batch_size=16)

    def run(judge: Judge, directory: Path) -> TrainedModels:
        training = QuantizationAwareTraining(_dataset, _dataset, parameters)
        options = LadderOptions(judge=judge, profile="cpu")
        return training.run(_model, load_scheme("full_int8"), ladder=options, checkpoint_dir=directory)

    whole = run(_after(1), tmp_path / "whole")

    def killed(integer: Any, parent: Any) -> tuple[bool, tuple[str, ...]]:
        if (tmp_path / "cut" / "selective-00000001.npz").exists():
            raise KeyboardInterrupt
        return False, ()

    with pytest.raises(KeyboardInterrupt):
        run(killed, tmp_path / "cut")
    resumed = run(_after(1), tmp_path / "cut")
    assert resumed.rung == whole.rung == "selective"
    for one, other in zip(whole.quantized_model.get_weights(), resumed.quantized_model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def _noisy() -> tf_keras.Model:
    """The second layer has one weight that makes its other ones vanish in rounding."""
    inputs = tf_keras.Input((8,), name="x")
    model = tf_keras.Model(inputs, layers.Dense(4, name="third")(layers.Dense(8, name="coarse")(inputs)))
    kernel, bias = model.get_layer("coarse").get_weights()
    kernel[0, 0] = 300.0
    model.get_layer("coarse").set_weights([kernel, bias])
    return model


def test_sensitivity_finds_the_layer_that_rounding_ruins() -> None:
    examples = np.random.default_rng(1).normal(size=(32, 8)).astype(np.float32)
    examples[:, 0] = 0
    model = quantize_model(_noisy())
    calibrate(model, [{"x": examples}])
    measured = sensitivities(model, {"x": examples})
    assert measured[0].layer == "coarse"
    assert measured[0].sqnr_db + 20 < measured[1].sqnr_db
    assert worst(measured) == ("coarse",)
    assert all(layer.quantizing for layer in quantizers(model))


def test_worst_layers_are_at_most_half() -> None:
    measured = [Sensitivity(layer=name, noise=1.0) for name in "abcdef"]
    assert worst(measured) == ("a", "b", "c")
    assert worst(measured[:1]) == ("a",)
    assert Sensitivity(layer="exact", noise=0.0).sqnr_db == math.inf


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "got no batch"),
        ([{"x": np.full((1, 8), np.inf)}], r"calibration: ranges are not finite in x_range \(0 to inf\), .*look for"),
        ([{"y": np.zeros((1, 8))}], "the model's inputs x are no features; there are y"),
    ],
)
def test_calibration_refuses_what_it_cannot_use(batches: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(quantize_model(_noisy()), batches)
