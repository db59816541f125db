"""What a plan says of each layer, and that it says all of it before anything is trained."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import QuantizationPlan, plan, quantize_model
from components.quantization.schemes import QuantizationScheme

import small_models as models

layers = tf_keras.layers


def _chain(shape: tuple[int, ...], *chain: Any) -> tf_keras.Model:
    return tf_keras.Sequential([layers.InputLayer(shape), *chain])


def _actions(found: QuantizationPlan) -> dict[str, str]:
    """Actions by layer name, without those of layers that were replaced."""
    return {layer.name: layer.action for layer in found.layers if layer.action != "rewrite"}


def _reasons(found: QuantizationPlan) -> dict[str, str]:
    return {layer.name: layer.reason for layer in found.layers if layer.action != "rewrite"}


class _Own(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2, name="dense")

    def call(self, inputs: Any) -> Any:
        return tf.nn.relu(self.dense(inputs))


def test_plan_lists_every_layer_with_action_and_reason() -> None:
    found = plan(models.convolutional(), target="edge_tpu")
    assert found.target == "edge_tpu"
    assert [(layer.name, layer.layer, layer.action, layer.reason) for layer in found.layers] == [
        ("probabilities", "Dense", "rewrite", "split activations"),
        ("conv", "Conv2D", "quantize", "8-bit weights per axis, fused with what follows"),
        ("normalization", "BatchNormalization", "fold", "into conv"),
        ("relu", "ReLU", "quantize", "range trained"),
        ("pool", "MaxPooling2D", "pass", "shares the range of relu"),
        ("flatten", "Flatten", "pass", "shares the range of relu"),
        ("probabilities", "Dense", "quantize", "8-bit weights per tensor, range trained"),
        ("probabilities_softmax", "Softmax", "quantize", "range prescribed by the kernel"),
    ]


def test_plan_prints_every_layer_in_a_line_and_the_coverage() -> None:
    lines = str(plan(models.convolutional())).splitlines()
    assert len(lines) == 8 + 1
    assert lines[2].split(maxsplit=3) == ["normalization", "(BatchNormalization)", "fold", "into conv"]
    assert lines[-1] == (
        "trained as integers: 100.0% of the parameters, 100.0% of the multiplications; layers calibrated: 0, blocked: 0"
    )


def test_plan_counts_parameters_and_multiplications_of_each_layer() -> None:
    found = {
        (layer.name, layer.action): (layer.parameters, layer.macs) for layer in plan(models.convolutional()).layers
    }
    assert found["conv", "quantize"] == (3 * 3 * 4, 6 * 6 * 3 * 3 * 4)
    assert found["normalization", "fold"] == (4 * 4, 0)  # gamma, beta and two moving averages
    assert found["probabilities", "quantize"] == (3 * 3 * 4 * 3 + 3, 3 * 3 * 4 * 3)
    assert found["relu", "quantize"] == (0, 0)


@pytest.mark.parametrize(
    ("shape", "layer", "macs"),
    [
        ((8, 4), layers.Conv1DTranspose(2, 3), 8 * 3 * 2 * 4),
        ((8, 4), layers.SeparableConv1D(2, 3, padding="causal"), 8 * (3 * 4 + 4 * 2)),
        ((4, 4, 4, 2), layers.Conv3D(3, 2), 3 * 3 * 3 * 2 * 2 * 2 * 2 * 3),
        ((8, 4), layers.EinsumDense("abc,cd->abd", (None, 5)), 8 * 4 * 5),
        ((8, 4), lambda x: layers.MultiHeadAttention(2, 3)(x, x), 8 * (4 * 4 * 2 * 3 + 3 * 2 * 3)),
        ((8, 8, 4), layers.PReLU(shared_axes=[1, 2]), 8 * 8 * 4),
        ((5,), layers.Embedding(7, 3), 0),
    ],
)
def test_plan_counts_multiplications_when_a_layer_has_other_weights_than_a_kernel(
    shape: tuple[int, ...], layer: Any, macs: int
) -> None:
    inputs = tf_keras.Input(shape)
    assert sum(row.macs for row in plan(tf_keras.Model(inputs, layer(inputs))).layers) == macs


def test_plan_covers_what_is_trained_when_a_layer_is_calibrated() -> None:
    found = plan(
        _chain((8, 4), layers.Conv1D(2, 3, name="conv"), layers.LSTM(2, name="lstm"), layers.Dense(2, name="dense"))
    )
    assert _actions(found) == {"conv": "quantize", "lstm": "calibrate", "dense": "quantize"}
    # Conv1D 3*4*2 + 2, LSTM 4 * (2*2 + 2*2 + 2), Dense 2*2 + 2.
    assert found.coverage == pytest.approx((26 + 6) / (26 + 40 + 6))


def test_plan_folds_a_normalization_behind_a_convolution_and_not_one_before_it() -> None:
    found = plan(
        _chain(
            (8, 8, 4),
            layers.BatchNormalization(name="before"),
            layers.Conv2D(2, 3, name="conv"),
            layers.BatchNormalization(name="behind"),
        )
    )
    assert _actions(found) == {"before": "quantize", "conv": "quantize", "behind": "fold"}
    assert _reasons(found)["before"] == "as a 1x1 depthwise convolution, range trained"


def test_plan_keeps_a_normalization_as_a_layer_when_the_convolution_feeds_two_layers() -> None:
    inputs = tf_keras.Input((8, 8, 1))
    conv = layers.Conv2D(2, 3, name="conv")(inputs)
    outputs = layers.Add(name="sum")([layers.BatchNormalization(name="norm")(conv), conv])
    found = plan(tf_keras.Model(inputs, outputs))
    assert _actions(found) == {"conv": "quantize", "norm": "quantize", "sum": "quantize"}
    assert _reasons(found)["conv"] == "8-bit weights per axis, range trained"
    assert _reasons(found)["norm"].startswith("as a 1x1 depthwise convolution")


def test_plan_keeps_a_normalization_as_a_layer_when_the_convolution_is_an_output() -> None:
    inputs = tf_keras.Input((8, 8, 1))
    conv = layers.Conv2D(2, 3, name="conv")(inputs)
    assert _actions(plan(tf_keras.Model(inputs, [conv, layers.BatchNormalization(name="norm")(conv)]))) == {
        "conv": "quantize",
        "norm": "quantize",
    }


def test_plan_leaves_a_normalization_to_calibration_when_it_normalizes_another_axis() -> None:
    found = plan(_chain((8, 8, 4), layers.BatchNormalization(axis=1, name="rows")))
    assert _actions(found) == {"rows": "calibrate"}
    assert "another axis than the last" in _reasons(found)["rows"]


def test_plan_folds_a_normalization_when_it_is_behind_a_separable_convolution() -> None:
    found = plan(_chain((8, 8, 4), layers.SeparableConv2D(2, 3, name="separable"), layers.BatchNormalization(name="n")))
    assert _actions(found) == {"separable_depthwise": "quantize", "separable": "quantize", "n": "fold"}
    assert found.layers[0].action == "rewrite"


def test_plan_lists_a_shared_layer_once_with_the_multiplications_of_all_calls() -> None:
    one, two = tf_keras.Input((3,)), tf_keras.Input((3,))
    shared = layers.Dense(2, name="shared")
    found = plan(tf_keras.Model([one, two], layers.Add(name="sum")([shared(one), shared(two)])))
    assert [layer.name for layer in found.layers] == ["shared", "sum"]
    assert (found.layers[0].parameters, found.layers[0].macs) == (3 * 2 + 2, 2 * 3 * 2)


def test_plan_folds_a_normalization_into_a_shared_convolution_only_when_it_follows_every_call() -> None:
    def build(everywhere: bool) -> tf_keras.Model:
        one, two = tf_keras.Input((8, 8, 1)), tf_keras.Input((8, 8, 1))
        conv, norm = layers.Conv2D(2, 3, name="conv"), layers.BatchNormalization(name="norm")
        other = norm(conv(two)) if everywhere else conv(two)
        return tf_keras.Model([one, two], layers.Add(name="sum")([norm(conv(one)), other]))

    assert _actions(plan(build(everywhere=True)))["norm"] == "fold"
    assert _actions(plan(build(everywhere=False)))["norm"] == "quantize"


def test_plan_shares_one_range_when_tensors_are_concatenated() -> None:
    inputs = tf_keras.Input((8, 8, 2))
    branches = [layers.Conv2D(2, 3, name="left")(inputs), layers.ReLU(name="right")(layers.Conv2D(2, 3)(inputs))]
    found = plan(tf_keras.Model(inputs, layers.Concatenate(name="both")(branches)))
    assert _actions(found)["both"] == "pass"
    assert _reasons(found)["both"] == "shares the range of left"


def test_plan_keeps_the_range_that_a_kernel_prescribes() -> None:
    found = plan(_chain((8, 8, 2), layers.Conv2D(2, 3, activation="tanh", name="conv"), layers.Softmax(name="softmax")))
    assert _reasons(found)["conv_tanh"] == "range prescribed by the kernel"
    assert _reasons(found)["softmax"] == "range prescribed by the kernel"


def test_plan_passes_what_does_nothing_at_inference() -> None:
    found = plan(_chain((4,), layers.Dense(2, name="dense"), layers.Dropout(0.5, name="dropout")))
    assert _actions(found)["dropout"] == "pass"
    assert _reasons(found)["dropout"] == "does nothing at inference"


def test_plan_names_all_blockers_at_once() -> None:
    model = _chain(
        (6, 6, 6, 1),
        layers.Conv3D(2, 3, name="volume"),
        layers.MaxPooling3D(name="pool"),
        layers.Reshape((8, 2)),
        layers.GRU(2, name="memory"),
        layers.Dense(2, name="dense"),
    )
    assert [layer.name for layer in plan(model).blockers] == ["volume", "pool"]
    found = plan(model, untrainable="fail")
    assert [layer.name for layer in found.blockers] == ["volume", "pool", "memory"]
    assert all(layer.reason for layer in found.blockers)
    with pytest.raises(ValueError, match=r"volume \(Conv3D\).*use Conv2D.*; pool \(MaxPooling3D\).*; memory \(GRU\)"):
        quantize_model(model, untrainable="fail")


def test_plan_leaves_layers_to_calibration_when_the_scheme_skips_them() -> None:
    scheme = QuantizationScheme(name="mine", overrides=(("^head$", "skip"), ("^conv$", "int4_weights")))
    model = _chain((8, 8, 1), layers.Conv2D(2, 3, name="conv"), layers.Flatten(), layers.Dense(2, name="head"))
    found = plan(model, scheme)
    assert found.scheme is scheme
    assert _actions(found)["head"] == "calibrate"
    assert "left out of training by the scheme" in _reasons(found)["head"]
    assert _reasons(found)["conv"].startswith("4-bit weights per axis")
    # Conv2D 3*3*2 + 2 parameters and 6*6*3*3*2 multiplications; Dense 72*2 + 2 and 72*2.
    assert found.coverage == pytest.approx(20 / (20 + 146))
    assert found.mac_coverage == pytest.approx(648 / (648 + 144))


def test_plan_has_one_scale_for_each_kernel_when_the_scheme_is_per_tensor() -> None:
    assert _reasons(plan(models.convolutional(), "full_int8_per_tensor"))["conv"].startswith("8-bit weights per tensor")


def test_plan_counts_only_the_layers_of_the_model_itself() -> None:
    model = models.convolutional()
    before = plan(model)
    tf_keras.Model(model.input, layers.Flatten()(model.get_layer("conv").output))  # a probe on the same layer
    assert plan(model) == before
    assert _actions(before)["normalization"] == "fold"


def test_plan_names_the_layers_of_nested_models_by_both() -> None:
    inner = tf_keras.Sequential([layers.InputLayer((3,)), layers.Dense(2, name="dense")], name="inner")
    found = plan(_chain((3,), inner, layers.ReLU(name="relu")))
    assert [(layer.name, layer.action) for layer in found.layers] == [
        ("inner", "rewrite"),
        ("inner/dense", "quantize"),
        ("relu", "quantize"),
    ]


def test_plan_takes_a_model_of_keras_3() -> None:
    chain = [keras.Input((8, 8, 2)), keras.layers.Conv2D(2, 3, name="conv"), keras.layers.BatchNormalization(name="n")]
    found = plan(keras.Sequential([*chain, keras.layers.ReLU(name="relu")], name="three"))
    assert (found.layers[0].name, found.layers[0].reason) == ("three", "rebuild in tf_keras")
    assert _actions(found) == {"conv": "quantize", "n": "fold", "relu": "quantize"}


def test_plan_takes_a_subclassed_model() -> None:
    model = _Own()
    model(np.zeros((1, 3), np.float32))
    found = plan(model)
    assert found.layers[0].reason == "capture the call"
    assert _actions(found)["dense"] == "quantize"
    assert found.coverage == 1.0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (object(), "got builtins.object, expected a Keras model"),
        (keras.Sequential(name="empty"), "empty"),
        (tf_keras.Sequential([layers.Dense(2)]), "is not built; give its first layer an input_shape"),
        (_Own(), "is not built; call it once on a batch"),
    ],
)
def test_plan_raises_when_the_model_cannot_be_taken_apart(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "int3"}, "unknown scheme 'int3'"),
        ({"target": "moon"}, "unknown target 'moon'"),
        ({"scheme": "int16x8", "target": "edge_tpu"}, "target 'edge_tpu' cannot run scheme 'int16x8'"),
        ({"untrainable": "hope"}, "untrainable: got 'hope', expected one of calibrate, fail"),
    ],
)
def test_plan_raises_when_it_is_asked_for_what_is_not_there(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(models.dense(), **arguments)


def test_quantize_model_leaves_the_model_alone() -> None:
    model = models.convolutional()
    before = model.get_weights()
    quantized = quantize_model(model, scheme="full_int8_per_tensor")
    assert quantized is not model
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_quantize_model_has_one_scale_per_channel_only_when_the_scheme_is_per_axis() -> None:
    def scales(scheme: str) -> int:
        return int(quantize_model(models.convolutional(), scheme).get_layer("conv").scale_count())

    assert scales("full_int8") == 4
    assert scales("full_int8_per_tensor") == 1


def test_quantize_model_raises_when_the_scheme_is_not_trained() -> None:
    with pytest.raises(ValueError, match="scheme 'float16' is not trained"):
        quantize_model(models.dense(), "float16")
