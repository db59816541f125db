from typing import Any

import keras
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import plan, quantize_model

import small_models as models

layers = tf_keras.layers

# A layer on a (8, 8, 4) input, and whether tfmot 0.8.1 trains it.
_LAYERS: list[tuple[Any, bool]] = [
    (layers.Conv2D(2, 3), True),
    (layers.Conv2D(2, 3, activation="relu"), True),
    (layers.Conv2D(2, 3, activation="elu"), False),
    (layers.DepthwiseConv2D(3), True),
    (layers.SeparableConv2D(2, 3), True),
    (layers.Conv2DTranspose(2, 3), True),
    (layers.Dense(2, activation="tanh"), True),
    (layers.Dense(2, activation="selu"), False),
    (layers.ReLU(), True),
    (layers.LeakyReLU(), True),
    (layers.PReLU(), False),
    (layers.Activation("relu6"), True),
    (layers.Activation("hard_sigmoid"), False),
    (layers.Softmax(), True),
    (layers.MaxPooling2D(), True),
    (layers.GlobalAveragePooling2D(), True),
    (layers.UpSampling2D(), True),
    (layers.ZeroPadding2D(), True),
    (layers.Flatten(), True),
    (layers.Dropout(0.5), True),
    (layers.BatchNormalization(), False),
    (layers.LayerNormalization(), False),
    (layers.Rescaling(0.5), False),
]


@pytest.mark.parametrize(("layer", "trained"), _LAYERS, ids=lambda value: getattr(value, "name", str(value)))
def test_plan_agrees_with_tfmot(layer: Any, trained: bool) -> None:
    model = tf_keras.Sequential([layers.InputLayer((8, 8, 4)), type(layer).from_config(layer.get_config())])
    blockers = plan(model).blockers
    assert (not blockers) == trained
    if trained:
        assert quantize_model(model).output_shape == model.output_shape
    else:
        with pytest.raises(ValueError, match=f"{blockers[0].name} "):
            quantize_model(model)


def test_plan_lists_every_layer_with_its_action() -> None:
    found = plan(models.convolutional(), target="edge_tpu")
    actions = {layer.name: layer.action for layer in found.layers}
    assert actions == {
        "conv": "quantize",
        "normalization": "fold",
        "relu": "quantize",
        "pool": "pass",
        "flatten": "pass",
        "probabilities": "quantize",
    }
    assert found.coverage == 1.0
    assert found.target == "edge_tpu"
    assert "folded into conv" in str(found)


def test_plan_names_all_blockers_at_once() -> None:
    model = tf_keras.Sequential(
        [
            layers.InputLayer((8, 4)),
            layers.Conv1D(2, 3, name="first"),
            layers.Dense(2, name="second"),
            layers.LSTM(2, name="third"),
        ]
    )
    found = plan(model)
    assert [layer.name for layer in found.blockers] == ["first", "third"]
    # Conv1D 3*4*2+2, Dense 2*2+2, LSTM 4*(2*2+2*2+2): 6 of 72 parameters are trained.
    assert found.coverage == pytest.approx(6 / 72)
    with pytest.raises(ValueError, match=r"first \(Conv1D\).*; third \(LSTM\)"):
        quantize_model(model)


def test_plan_counts_only_the_layers_of_the_model_itself() -> None:
    model = models.convolutional()
    tf_keras.Model(model.input, layers.Flatten()(model.get_layer("conv").output))  # a probe on the same layer
    assert plan(model).blockers == ()


def test_plan_folds_batch_normalization_behind_a_separable_convolution_as_tfmot_does() -> None:
    model = tf_keras.Sequential(
        [layers.InputLayer((8, 8, 4)), layers.SeparableConv2D(2, 3), layers.BatchNormalization(), layers.ReLU()]
    )
    assert plan(model).blockers == ()
    assert quantize_model(model).output_shape == model.output_shape


def test_plan_blocks_batch_normalization_when_the_convolution_feeds_two_layers() -> None:
    inputs = tf_keras.Input((8, 8, 1))
    conv = layers.Conv2D(2, 3, name="conv")(inputs)
    model = tf_keras.Model(inputs, layers.Add()([layers.BatchNormalization(name="norm")(conv), conv]))
    assert [layer.name for layer in plan(model).blockers] == ["norm"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (object(), "expected a tf_keras.Model"),
        (keras.Sequential(), "not with tf.keras of TensorFlow >= 2.16, which is Keras 3"),
        (tf_keras.Sequential([layers.Dense(2)]), "is not built; give its first layer an input_shape"),
        (type("Own", (tf_keras.Model,), {})(), "got a subclassed Own"),
    ],
)
def test_plan_raises_when_the_model_cannot_be_walked(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(model)


def test_quantize_model_leaves_the_model_alone() -> None:
    model = models.convolutional()
    before = model.get_weights()
    quantized = quantize_model(model, scheme="full_int8_per_tensor")
    assert quantized is not model
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_quantize_model_trains_one_range_per_channel_only_when_the_scheme_is_per_axis() -> None:
    def ranges(scheme: str) -> int:
        weights = quantize_model(models.convolutional(), scheme).get_layer("conv").weights
        return next(int(tf.size(w)) for w in weights if w.name.endswith("kernel_min:0"))

    assert ranges("full_int8") == 4
    assert ranges("full_int8_per_tensor") == 1
