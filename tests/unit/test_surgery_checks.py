"""What is wrong with a model is said in one sentence before it is changed; what is unusual in it is kept."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import plan, quantize_model
from components.quantization.autograph import leave_libraries_alone
from components.quantization.surgery.prepare import prepare
from components.quantization.surgery.proof import difference, require_same_function
from components.quantization.surgery.subclassed import captured

from small_models import chain, kinds

leave_libraries_alone()
K, K3 = tf_keras.layers, keras.layers
IMAGE = (6, 6, 3)
_RANDOM = np.random.default_rng(1)
_WHOLE = _RANDOM.uniform(1.0, 2.0, IMAGE)
Step = Callable[[Any], Any]


def conv(**arguments: Any) -> Any:
    return K.Conv2D(3, 3, padding="same", **arguments)


# --- Inputs, dtypes and losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
@pytest.mark.parametrize("library", [tf_keras, keras])
@pytest.mark.parametrize("kind", ["Rescaling", "Normalization", "operator"])
def test_prepare_asks_for_float_pixels_when_an_input_of_integers_is_computed_with(
    dtype: str, library: Any, kind: str
) -> None:
    steps = {
        "Rescaling": library.layers.Rescaling(1 / 255),
        "Normalization": library.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0]),
        "operator": lambda x: x / 255,
    }
    model = chain(IMAGE, steps[kind], library.layers.Conv2D(2, 3), dtype=dtype, library=library)
    with pytest.raises(ValueError, match="input 'x': got integers, .*expected floats; give it float32 pixels"):
        prepare(model)


def test_prepare_asks_for_float_pixels_when_a_nested_model_computes_with_integers() -> None:
    nested = chain(IMAGE, K.Flatten(), K.Dense(2, name="dense"), dtype="int32")
    inputs = tf_keras.Input(IMAGE, dtype="int32", name="pixels")
    with pytest.raises(ValueError, match="input 'pixels': got integers, which layer 'dense' computes with"):
        prepare(tf_keras.Model(inputs, nested(inputs)))


def test_prepare_takes_integers_when_they_are_looked_up() -> None:
    prepare(chain((4,), lambda x: tf.one_hot(x, 3), K.Flatten(), K.Dense(2), dtype="int32"))
    prepare(chain((4,), K.Embedding(3, 2), dtype="int32"))


@pytest.mark.parametrize(
    "layer",
    [
        K.Rescaling(_WHOLE),
        K.Rescaling(0.5, _WHOLE),
        K.Normalization(axis=(1, 2, 3), mean=_WHOLE, variance=_WHOLE),
        K.Normalization(axis=1, mean=_WHOLE[0, :, 0], variance=_WHOLE[0, :, 0]),
    ],
)
def test_preprocessing_is_calibrated_when_its_constants_differ_beyond_the_channels(layer: Any) -> None:
    assert [row.layer for row in plan(chain(IMAGE, layer, conv())).calibrated] == [type(layer).__name__]


def test_preprocessing_of_keras_3_is_calibrated_when_its_constants_are_arrays() -> None:
    model = chain(IMAGE, K3.Rescaling(_WHOLE), K3.Conv2D(3, 3), library=keras)
    assert [row.layer for row in plan(model).calibrated] == ["Rescaling"]


@pytest.mark.parametrize(
    ("library", "step"),
    [
        (tf_keras, lambda x: tf_keras.applications.imagenet_utils.preprocess_input(x, mode="torch")),
        (keras, lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="torch")),
        (tf_keras, lambda x: (x - [0.1, 0.2, 0.3]) / [1.0, 2.0, 3.0]),
    ],
)
def test_preprocessing_is_one_layer_when_its_constants_are_lists(library: Any, step: Step) -> None:
    model = chain(IMAGE, step, library.layers.Conv2D(2, 3), library=library)
    assert kinds(prepare(model).model) == ["ChannelAffine", "Conv2D"]


def _doubled(x: Any) -> Any:
    return x * 2.0


@pytest.mark.parametrize("function", [lambda x: x * 2.0, _doubled, functools.partial(tf.nn.leaky_relu, alpha=0.1)])
@pytest.mark.parametrize("kind", [K.Activation, functools.partial(K.Dense, 3)])
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_prepare_names_the_layer_when_its_activation_has_no_name(function: Any, kind: Any) -> None:
    model = chain(IMAGE, kind(activation=function, name="custom"))
    with pytest.raises(ValueError, match="got activation functions that Keras does not know by a name: 'custom' with"):
        prepare(model)


@pytest.mark.parametrize("name", ["relu", "swish", "tanh"])
@pytest.mark.parametrize("library", [tf_keras, keras])
def test_split_activation_gets_another_name_when_a_layer_has_it(name: str, library: Any) -> None:
    layers = library.layers
    steps = [layers.Conv2D(2, 3, activation=name, name="c"), layers.Conv2D(2, 3, name=f"c_{name}")]
    names = [layer.name for layer in prepare(chain(IMAGE, *steps, library=library)).model.layers]
    assert {"c", f"c_{name}", f"c_{name}_2"} <= set(names)


def test_split_activation_of_keras_3_gets_another_name_when_a_layer_has_it() -> None:
    steps = [K3.Conv2D(2, 3, activation="hard_silu", name="c"), K3.Conv2D(2, 3, name="c_hard_silu")]
    model = prepare(chain(IMAGE, *steps, library=keras)).model
    assert isinstance(model.get_layer("c_hard_silu"), K.Conv2D)


def test_split_separable_convolution_gets_another_name_when_a_layer_has_it() -> None:
    model = prepare(chain(IMAGE, K.SeparableConv2D(2, 3, name="c"), conv(name="c_depthwise"))).model
    assert [layer.name for layer in model.layers[1:]] == ["c_depthwise_2", "c", "c_depthwise"]


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_prepare_names_the_layers_when_they_do_not_compute_in_float32(policy: str) -> None:
    model = chain(IMAGE, K.Conv2D(2, 3, dtype=policy, name="narrow"), K.Conv2D(2, 3, dtype="float32", name="fine"))
    with pytest.raises(ValueError, match=r"do not compute in float32: narrow \(float(16|64)\); rebuild the model"):
        prepare(model)


def test_prepare_warns_when_losses_of_the_model_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    kept = K.ActivityRegularization(l2=0.1, name="kept")
    model = chain(IMAGE, conv(activity_regularizer="l2", name="regular"), kept)
    model.add_loss(tf.reduce_mean(model.output))
    with caplog.at_level(logging.WARNING):
        prepare(model)
    (record,) = caplog.records
    assert "leaves out activity_regularizer of regular and losses of model.add_loss" in record.getMessage()
    caplog.clear()
    prepare(chain(IMAGE, conv(kernel_regularizer="l2"), kept))
    assert not caplog.records


# --- Proof, nested and subclassed models ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_require_same_function_raises_when_no_output_is_a_number(value: float) -> None:
    model = chain((3,), lambda x: x * value if np.isnan(value) else x * x * value)
    with pytest.raises(ValueError, match="step 's' cannot be proved, got an output .* not a number anywhere"):
        require_same_function(model, model, "s")


def _partly_frozen() -> tf_keras.Model:
    deep = chain((3,), K.Dense(3, name="deep_dense"))
    base = chain((3,), K.Dense(3, name="first"), K.Dense(3, name="second"), deep)
    base.trainable = False
    base.get_layer("second").trainable = True
    deep.get_layer("deep_dense").trainable = True
    return base


def test_inlined_layers_stay_frozen_when_their_model_is_though_they_are_set_otherwise() -> None:
    model = chain((3,), _partly_frozen(), K.Dense(2, name="head"))
    trainable = [weight.shape for weight in model.trainable_weights]
    assert trainable == [(3, 2), (2,)]
    assert [weight.shape for weight in quantize_model(model).trainable_weights] == trainable


def test_inlined_layer_is_trained_when_it_is_also_called_outside_the_frozen_model() -> None:
    shared = K.Dense(3, name="shared")
    base = chain((3,), shared)
    base.trainable = False
    shared.trainable = True
    model = chain((3,), base, shared)
    assert len(prepare(model).model.trainable_weights) == len(model.trainable_weights) == 2


class Frozen(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.base, self.head = _partly_frozen(), K.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        return self.head(self.base(x))


class Nested(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__(name="nested")
        self.body, self.head = K.Dense(3, name="body"), K.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        y = self.body(x)
        return {"logits": self.head(y), "feat": [y, tf.nn.relu(y)]}


def test_captured_layers_stay_frozen_when_their_model_is_though_they_are_set_otherwise() -> None:
    model = Frozen()
    model(np.zeros((1, 3), np.float32))
    assert [weight.shape for weight in captured(model).trainable_weights] == [(3, 2), (2,)]


def test_captured_names_every_output_when_they_are_nested() -> None:
    model = Nested()
    example = _RANDOM.normal(size=(4, 3)).astype(np.float32)
    olds = model(example)
    quantized = quantize_model(model)
    assert captured(model).output_names == quantized.output_names == ["feat_1", "feat_2", "logits"]
    assert difference(olds["feat"][0], captured(model)(example)["feat"][0]) <= 1e-5
