"""What the converter would leave in floats: rewritten so that it does not, calibrated, or blocked with a remedy."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import convert, plan, quantize_model
from components.quantization.autograph import leave_libraries_alone
from components.quantization.surgery import duplicates
from components.quantization.surgery.prepare import prepare

from small_models import chain, kinds

leave_libraries_alone()
K, K3 = tf_keras.layers, keras.layers
IMAGE = (6, 6, 3)
_RANDOM = np.random.default_rng(1)
Step = Callable[[Any], Any]


def conv(**arguments: Any) -> Any:
    return K.Conv2D(3, 3, padding="same", **arguments)


def trained(model: Any) -> tf_keras.Model:
    """The quantized model after one step."""
    quantized = quantize_model(model)
    quantized.compile(tf_keras.optimizers.legacy.SGD(1e-6), "mse", run_eagerly=True)
    examples = _RANDOM.normal(size=(8, *model.inputs[0].shape[1:])).astype(np.float32)
    quantized.train_on_batch(examples, [np.asarray(one) for one in tf.nest.flatten(model(examples))])
    return quantized


# --- Duplicates -------------------------------------------------------------------------------------------------------


def _same_layer(x: Any) -> Any:
    shared = conv(name="shared")
    return K.Concatenate()([shared(x), conv()(shared(x))])


def _same_pools(x: Any) -> Any:
    y = K.ReLU()(conv()(x))
    joined = K.Concatenate()([K.GlobalAveragePooling2D()(y), K.GlobalMaxPooling2D()(y)])
    return [joined, K.Dense(3)(K.GlobalAveragePooling2D()(y))]


def _same_functions(x: Any) -> Any:
    y = conv()(x)
    return K.Concatenate()([y * 2.0, conv()(y * 2.0)])


@pytest.mark.long
@pytest.mark.parametrize("body", [_same_layer, _same_pools, _same_functions])
def test_convert_leaves_no_floats_when_equal_layers_have_other_ranges(body: Step) -> None:
    model = chain(IMAGE, body)
    assert len(duplicates.duplicates(model)) == 1
    convert(trained(model))  # raises where a float is left


def test_merged_computes_chains_of_duplicates_once_when_all_their_layers_are_equal() -> None:
    shared, normalization = conv(), K.BatchNormalization()
    model = chain(IMAGE, lambda x: [conv()(normalization(shared(x))), K.Flatten()(normalization(shared(x)))])
    prepared = prepare(model)
    assert kinds(prepared.model).count("BatchNormalization") == 1
    assert [rewrite.step for rewrite in prepared.rewrites] == [duplicates.TITLE] * 2


def test_merged_keeps_what_differs_when_layers_are_random_or_have_other_arguments() -> None:
    def body(x: Any) -> Any:
        dropped = [K.Dropout(0.5)(x), K.Dropout(0.5)(x), K.GaussianNoise(0.1)(x), K.GaussianNoise(0.1)(x)]
        return [*dropped, x * 2.0, x * 3.0, x[:, 1:], x[:, 2:], conv()(x), conv()(x)]

    assert duplicates.duplicates(chain(IMAGE, body)) == []


def test_merged_keeps_the_name_of_an_output_when_a_duplicate_comes_first() -> None:
    def body(x: Any) -> Any:
        y = conv()(x)
        first, second = K.ReLU(name="inner")(y), K.ReLU(name="scores")(y)
        return [K.Dense(2, name="head")(K.Flatten()(conv()(first))), second]

    prepared = prepare(chain(IMAGE, body)).model
    assert prepared.output_names == ["head", "scores"]
    assert [layer.name for layer in prepared.layers if isinstance(layer, K.ReLU)] == ["scores"]


def test_merged_keeps_both_when_both_are_outputs() -> None:
    model = chain(IMAGE, conv(), lambda y: [K.ReLU(name="one")(y), K.ReLU(name="two")(y)])
    assert duplicates.duplicates(model) == []


# --- Functions --------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.clip_by_value(x, 0.0, 6.0),
        lambda x: tf.clip_by_value(x, 0.0, 1.0),
        lambda x: tf.clip_by_value(x, -1.0, 1.0),
        lambda x: tf.maximum(x, 0.0),
        lambda x: tf.maximum(0.0, x),
        lambda x: x**3,
        lambda x: tf.add_n([x, x * 2.0, x]),
    ],
)
def test_function_is_trained_and_converts_without_examples_when_it_is_rewritten(function: Step) -> None:
    model = chain(IMAGE, conv(), function, conv())
    found = plan(model)
    assert not found.calibrated
    assert not found.blockers
    convert(trained(model))


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (0, 1), (-1.0, 1.0)])
def test_clip_of_keras_3_becomes_a_relu_when_the_converter_makes_one_of_it(low: float, high: float) -> None:
    model = chain(IMAGE, K3.Conv2D(3, 3), lambda x: keras.ops.clip(x, low, high), library=keras)
    assert "ReLU" in kinds(prepare(model).model)


@pytest.mark.parametrize(
    "step",
    [
        K.ReLU(threshold=0.5),
        K.ReLU(6.0, negative_slope=0.1),
        K.ThresholdedReLU(0.5),
        K.GroupNormalization(3),
        K.Activation("softsign"),
        K.UpSampling2D(interpolation="bicubic"),
        K.Resizing(5, 5, "lanczos3"),
        K.EinsumDense("abcd,de->abce", (None, None, 3)),
        lambda x: x / (x * x + 1.0),
        lambda x: 2.0 / (tf.nn.relu(x) + 1.0),
        lambda x: x**0.5,
        lambda x: tf.sqrt(x),
        lambda x: tf.nn.crelu(x),
        lambda x: tf.math.reduce_std(x, -1, keepdims=True),
        lambda x: tf.image.resize(x, (5, 5), "bicubic"),
    ],
)
def test_plan_blocks_with_a_remedy_when_a_layer_can_never_be_integers(step: Step) -> None:
    with np.errstate(invalid="ignore"):
        blockers = plan(chain(IMAGE, conv(activation="relu"), step)).blockers
    assert len(blockers) == 1
    assert ";" in blockers[0].reason


def test_plan_blocks_masking_and_dot_products_of_vectors() -> None:
    def product(x: Any) -> Any:
        return K.Dot(axes=1)([K.Dense(3)(x), K.Dense(3)(x)])

    assert [row.layer for row in plan(chain((4, 3), K.Masking(), K.Dense(2))).blockers] == ["Masking"]
    assert [row.layer for row in plan(chain((4,), product)).blockers] == ["Dot"]


@pytest.mark.long
def test_dense_is_calibrated_when_its_input_has_five_dimensions() -> None:
    model = chain((2, 3, 3, 4), K.Dense(4), K.BatchNormalization(), K.ReLU(), K.Dense(3))
    assert [row.layer for row in plan(model).calibrated] == ["Dense", "Dense"]
    convert(trained(model), representative_dataset=[_RANDOM.normal(size=(8, 2, 3, 3, 4)).astype(np.float32)])


# --- Recurrent layers -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    "layer",
    [
        K.LSTM(3, recurrent_dropout=0.2),
        K.LSTM(3, use_bias=False),
        K.LSTM(3, activation="relu"),
        K.GRU(3, reset_after=False),
        K.RNN([K.GRUCell(3, reset_after=False), K.SimpleRNNCell(2)]),
    ],
)
def test_recurrent_layer_is_unrolled_and_converts_when_it_is_no_single_op(layer: Any) -> None:
    model = chain((5, 4), K.Conv1D(4, 3), layer, K.Dense(2))
    assert "unroll recurrent layers" in [rewrite.step for rewrite in prepare(model).rewrites]
    examples = _RANDOM.normal(size=(8, 5, 4)).astype(np.float32)
    convert(trained(model), representative_dataset=[examples])


@pytest.mark.parametrize(
    ("shape", "layer", "reason"),
    [
        ((None, 4), K.GRU(3), "its number of steps is unknown; give the model's input a fixed number"),
        ((None, 4), K.LSTM(3), "its number of steps is unknown"),
        ((None, 4), K.Bidirectional(K.LSTM(3)), "its number of steps is unknown"),
        ((4, 6, 6, 2), K.ConvLSTM2D(2, 3), "loops over its steps"),
        ((4, 6, 6, 2), K.Bidirectional(K.ConvLSTM2D(2, 3)), "loops over its steps"),
    ],
)
def test_plan_blocks_a_recurrent_layer_with_a_remedy_when_it_cannot_be_unrolled(
    shape: Any, layer: Any, reason: str
) -> None:
    (blocker,) = plan(chain(shape, layer)).blockers
    assert reason in blocker.reason


def test_plan_blocks_a_recurrent_layer_when_it_is_stateful() -> None:
    inputs = tf_keras.Input(batch_shape=(2, 4, 3), name="x")
    (blocker,) = plan(tf_keras.Model(inputs, K.LSTM(2, stateful=True)(inputs))).blockers
    assert "stateful=False" in blocker.reason
