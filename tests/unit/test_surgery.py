"""Surgery on functional models: other layers, the same function, and the user's model left alone."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.surgery import arithmetic, inline, keras3, keras3_rebuild
from components.quantization.surgery.graph import calls
from components.quantization.surgery.prepare import prepare
from components.quantization.surgery.proof import difference, random_inputs, require_same_function

leave_libraries_alone()
K = tf_keras.layers
IMAGE, SERIES, VECTOR = (8, 8, 3), (4, 3), (3,)


def chain(shape: tuple[int, ...], *layers: Callable[[Any], Any], name: str = "model") -> tf_keras.Model:
    """Layers, or functions of a tensor, in a row."""
    inputs = values = tf_keras.Input(shape, name=f"{name}_x")
    for layer in layers:
        values = layer(values)
    return tf_keras.Model(inputs, values, name=name)


def randomized(model: Any) -> Any:
    """The model with random weights, the positive ones that variances have to be."""
    random = np.random.default_rng(2)
    model.set_weights([random.uniform(0.1, 1.0, weight.shape) for weight in model.get_weights()])
    return model


def outputs(model: Any, **arguments: Any) -> list[np.ndarray]:
    inputs = random_inputs(model)
    values = model(inputs if len(inputs) > 1 else inputs[0], **arguments)
    return [np.asarray(value) for value in tf.nest.flatten(values)]


def worst_difference(model: Any, changed: Any, **arguments: Any) -> float:
    pairs = zip(outputs(model, **arguments), outputs(changed, **arguments), strict=True)
    return max(difference(old, new) for old, new in pairs)


def layer_names(model: tf_keras.Model) -> list[str]:
    return [call.layer.name for call in calls(model)]


# --- Steps ------------------------------------------------------------------------------------------------------------


def _average(x: Any) -> Any:
    return K.Average(name="changed")([x, K.Dense(3)(x), K.Dense(3)(x)])


def _sum(x: Any) -> Any:
    return K.Add(name="changed")([x, K.Dense(3)(x), K.Dense(3)(x)])


def _bidirectional(**arguments: Any) -> K.Layer:
    return K.Bidirectional(K.LSTM(2, **arguments), name="changed")


def _normalization(invert: bool) -> K.Layer:
    return K.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 2.0], invert=invert, name="changed")


_SPLIT, _UNROLL = "split separable convolutions", "unroll recurrent layers"
_MEAN = "average the whole input by its mean"
_SPELL, _ACTIVATE, _ARITHMETIC = "spell out LayerNormalization", "split activations", "rewrite arithmetic"

# Shape of the input, the layer or function, and the step that changes it.
_CASES: dict[str, tuple[tuple[int, ...], Callable[[], Callable[[Any], Any]], str]] = {
    "SeparableConv2D": (
        IMAGE,
        lambda: K.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2, name="changed"),
        _SPLIT,
    ),
    "SeparableConv2D without bias": (IMAGE, lambda: K.SeparableConv2D(4, 3, use_bias=False, name="changed"), _SPLIT),
    "SeparableConv1D": (SERIES, lambda: K.SeparableConv1D(4, 3, dilation_rate=1, name="changed"), _SPLIT),
    "AveragePooling2D": (IMAGE, lambda: K.AveragePooling2D(IMAGE[:2], name="changed"), _MEAN),
    "AveragePooling1D": (SERIES, lambda: K.AveragePooling1D(SERIES[0], padding="same", name="changed"), _MEAN),
    "GRU": (SERIES, lambda: K.GRU(2, name="changed"), _UNROLL),
    "SimpleRNN": (SERIES, lambda: K.SimpleRNN(2, return_sequences=True, name="changed"), _UNROLL),
    "LSTM backwards": (SERIES, lambda: K.LSTM(2, go_backwards=True, name="changed"), _UNROLL),
    "Bidirectional": (SERIES, lambda: _bidirectional(return_sequences=True), _UNROLL),
    "LayerNormalization": (SERIES, lambda: K.LayerNormalization(name="changed"), _SPELL),
    "LayerNormalization alone": (
        SERIES,
        lambda: K.LayerNormalization(center=False, scale=False, name="changed"),
        _SPELL,
    ),
    "Dense(relu)": (VECTOR, lambda: K.Dense(3, "relu", name="changed"), _ACTIVATE),
    "Dense(tanh)": (VECTOR, lambda: K.Dense(3, "tanh", name="changed"), _ACTIVATE),
    "Conv2D(swish)": (IMAGE, lambda: K.Conv2D(2, 3, activation="swish", name="changed"), _ACTIVATE),
    "Conv2D(a layer)": (IMAGE, lambda: K.Conv2D(2, 3, activation=K.LeakyReLU(0.3), name="changed"), _ACTIVATE),
    "Activation(hard_sigmoid)": (VECTOR, lambda: K.Activation("hard_sigmoid", name="changed"), _ACTIVATE),
    "Activation(selu)": (VECTOR, lambda: K.Activation("selu", name="changed"), _ACTIVATE),
    "ELU": (VECTOR, lambda: K.ELU(0.5, name="changed"), _ACTIVATE),
    "ReLU(3)": (VECTOR, lambda: K.ReLU(3.0, name="changed"), _ACTIVATE),
    "ReLU(negative_slope=0.1)": (VECTOR, lambda: K.ReLU(negative_slope=0.1, name="changed"), _ACTIVATE),
    "Average of three": (VECTOR, lambda: _average, _ARITHMETIC),
    "Add of three": (VECTOR, lambda: _sum, _ARITHMETIC),
    "Rescaling": (IMAGE, lambda: K.Rescaling(2.0, -1.0, name="changed"), _ARITHMETIC),
    "Rescaling without offset": (IMAGE, lambda: K.Rescaling(1 / 255, name="changed"), _ARITHMETIC),
    "Rescaling per channel": (IMAGE, lambda: K.Rescaling([1.0, 2.0, 3.0], 1.0, name="changed"), _ARITHMETIC),
    "Normalization": (IMAGE, lambda: _normalization(invert=False), _ARITHMETIC),
    "Normalization inverted": (IMAGE, lambda: _normalization(invert=True), _ARITHMETIC),
    "TimeDistributed": (SERIES, lambda: K.TimeDistributed(K.Dense(2), name="changed"), _ARITHMETIC),
    "x / 3": (VECTOR, lambda: lambda x: x / 3, _ARITHMETIC),
    "-x": (VECTOR, lambda: lambda x: -x, _ARITHMETIC),
    "x ** 2": (VECTOR, lambda: lambda x: x**2, _ARITHMETIC),
    "tf.square": (VECTOR, lambda: tf.square, _ARITHMETIC),
}


@pytest.mark.parametrize("case", _CASES)
def test_prepare_leaves_outputs_and_model_as_they_are_when_a_layer_is_rewritten(case: str) -> None:
    shape, make, step = _CASES[case]
    model = randomized(chain(shape, K.Dense(3, name="first"), make()))
    weights, olds = model.get_weights(), outputs(model)
    nodes = {one.name: len(one.inbound_nodes) for one in model.layers}
    names = layer_names(model)
    name = "changed" if "changed" in names else names[1]  # functions have names of their own

    prepared = prepare(model)

    assert worst_difference(model, prepared.model) <= 1e-5
    assert next(rewrite.step for rewrite in prepared.rewrites if rewrite.name == name) == step
    assert prepared.model.output_names == model.output_names
    assert not {id(one) for one in prepared.model.layers} & {id(one) for one in model.layers}
    np.testing.assert_equal(outputs(model), olds)
    np.testing.assert_equal(model.get_weights(), weights)
    assert {one.name: len(one.inbound_nodes) for one in model.layers} == nodes


def test_prepare_returns_the_model_itself_when_nothing_is_to_be_rewritten() -> None:
    model = chain(VECTOR, K.Dense(3), K.ReLU())
    prepared = prepare(model)
    assert prepared.model is model
    assert prepared.rewrites == ()


def test_prepare_keeps_weights_shared_when_a_separable_convolution_is_called_twice() -> None:
    shared = K.SeparableConv2D(3, 3, padding="same", activation="relu", name="shared")
    prepared = prepare(randomized(chain(IMAGE, shared, shared)))
    assert [rewrite.name for rewrite in prepared.rewrites if rewrite.step == _SPLIT] == ["shared", "shared"]
    convolutions = [
        call.layer for call in calls(prepared.model) if isinstance(call.layer, K.Conv2D | K.DepthwiseConv2D)
    ]
    assert len(convolutions) == 4
    assert len(set(map(id, convolutions))) == 2
    assert len(prepared.model.weights) == 3


def test_prepare_names_step_and_first_differing_layer_when_a_step_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = arithmetic.rewrite

    def wrong(call: Any, args: Any, kwargs: Any, rewriter: Any) -> Any:
        return rewrite(call, args, kwargs, rewriter) * 2.0

    monkeypatch.setattr(arithmetic, "rewrite", wrong)
    model = chain(VECTOR, K.Dense(3, name="first"), K.Rescaling(2.0, name="scale"), K.Dense(3, name="second"), K.ReLU())
    with pytest.raises(
        ValueError, match=r"step 'rewrite arithmetic' would .*, first at layer 'second', expected at most"
    ):
        prepare(randomized(model))


@pytest.mark.parametrize("model", [3, K.Dense(2)])
def test_prepare_says_what_it_got_when_it_is_no_model(model: Any) -> None:
    with pytest.raises(ValueError, match="expected a Keras model; pass a built one"):
        prepare(model)


def test_prepare_says_so_when_the_model_is_not_built() -> None:
    with pytest.raises(ValueError, match="model 's' is not built; give its first layer an input_shape"):
        prepare(tf_keras.Sequential([K.Dense(2)], name="s"))


# --- Nested models ----------------------------------------------------------------------------------------------------


def _block(name: str = "inner", *layers: Any) -> tf_keras.Model:
    return chain(VECTOR, K.Dense(3, name="dense"), K.BatchNormalization(name="bn"), *layers, name=name)


@pytest.mark.parametrize("positional", [False, True])
def test_inlined_batch_normalization_stays_at_inference_when_the_model_is_called_so(positional: bool) -> None:
    base = _block("base", _block("deep"), K.Dropout(0.5, name="dropout"))
    frozen = (lambda x: base(x, False)) if positional else (lambda x: base(x, training=False))
    model = randomized(chain(VECTOR, frozen, K.Dense(2, name="head")))
    statistics = model.get_weights()
    flat = inline.inlined(model)
    assert worst_difference(model, flat, training=True) <= 1e-5
    assert worst_difference(model, flat, training=False) <= 1e-5
    np.testing.assert_equal(model.get_weights(), statistics)
    np.testing.assert_equal(flat.get_weights(), statistics)
    told = {call.layer.name: call.kwargs.get("training") for call in calls(prepare(model).model)}
    assert told["base/bn"] is told["base/deep/bn"] is told["base/dropout"] is False
    assert told["head"] is None


def test_inlined_batch_normalization_trains_when_the_model_does() -> None:
    model = randomized(chain(VECTOR, _block(), name="outer"))
    flat = inline.inlined(model)
    assert worst_difference(model, flat, training=True) <= 1e-5
    np.testing.assert_allclose(
        flat.get_layer("inner/bn").moving_mean, model.get_layer("inner").get_layer("bn").moving_mean
    )


def test_inlined_layer_keeps_its_own_training_when_the_nested_model_is_called_with_another() -> None:
    normalization = K.BatchNormalization(name="bn")
    inner = chain(VECTOR, lambda x: normalization(x, training=True), K.BatchNormalization(name="still"), name="inner")
    model = randomized(chain(VECTOR, lambda x: inner(x, training=False)))
    told = {call.layer.name: call.kwargs["training"] for call in calls(inline.inlined(model))}
    assert told == {"inner/bn": True, "inner/still": False}


def test_inlined_layers_are_named_by_their_models_when_there_are_three_levels() -> None:
    model = randomized(chain(VECTOR, _block("outer", _block("middle", _block("inner")))))
    flat = inline.inlined(model)
    assert layer_names(flat) == [
        f"{prefix}/{name}" for prefix in ("outer", "outer/middle", "outer/middle/inner") for name in ("dense", "bn")
    ]
    assert worst_difference(model, flat) <= 1e-5


def test_inlined_layers_stay_shared_when_a_nested_model_is_called_twice() -> None:
    inner = _block()
    model = randomized(chain(VECTOR, inner, K.Dense(3, name="between"), inner))
    flat = inline.inlined(model)
    assert layer_names(flat) == ["inner/dense", "inner/bn", "between", "inner/dense", "inner/bn"]
    assert len(flat.weights) == len(model.weights)
    assert worst_difference(model, flat) <= 1e-5


def test_inlined_model_keeps_inputs_outputs_and_their_names_when_there_are_several() -> None:
    a, b = tf_keras.Input(VECTOR, name="a"), tf_keras.Input(VECTOR, name="b")
    inner = tf_keras.Model(
        {"p": a, "q": b}, [K.Subtract(name="difference")([a, b]), K.Dense(2, name="y")(b)], name="inner"
    )
    x, y = tf_keras.Input(VECTOR, name="x"), tf_keras.Input(VECTOR, name="y")
    first, second = inner({"q": x, "p": K.Dense(3, name="dense")(y)})
    model = randomized(tf_keras.Model([x, y], {"first": first, "second": second}, name="outer"))
    flat = inline.inlined(model)
    assert flat.input_names == ["x", "y"]
    assert flat.output_names == model.output_names
    assert set(flat.output_shape) == {"first", "second"}
    assert worst_difference(model, flat) <= 1e-5


def test_inlined_model_casts_when_a_nested_one_takes_another_dtype() -> None:
    pixels = tf_keras.Input(IMAGE, dtype="uint8", name="pixels")
    model = tf_keras.Model(pixels, chain(IMAGE, K.Conv2D(2, 3, name="conv"), name="inner")(pixels))
    assert worst_difference(model, inline.inlined(model)) <= 1e-5


def test_inlined_raises_when_a_nested_model_is_called_with_a_mask() -> None:
    inner = chain(SERIES, K.LSTM(2), name="inner")
    model = chain(SERIES, lambda x: inner(x, mask=x[..., 0] > 0.0))
    with pytest.raises(ValueError, match="model 'inner': got a call with a mask, expected none; let a Masking"):
        inline.inlined(model)


# --- Copies -----------------------------------------------------------------------------------------------------------


def test_copies_keep_what_is_trainable_when_layers_inside_a_layer_differ() -> None:
    bidirectional = K.Bidirectional(K.GRU(2), name="bidirectional")
    inside = tf_keras.Sequential([K.Dense(2, name="frozen"), K.Dense(2, name="trained")])
    model = chain(SERIES, K.TimeDistributed(inside), bidirectional, K.Dense(2, trainable=False), K.ReLU(3.0))
    bidirectional.backward_layer.trainable = False
    inside.layers[0].trainable = False
    prepared = prepare(model).model
    assert [weight.shape for weight in prepared.trainable_weights] == [w.shape for w in model.trainable_weights]
    copy = prepared.get_layer("bidirectional")
    assert copy.trainable
    assert (copy.forward_layer.trainable, copy.backward_layer.trainable) == (True, False)


# --- Keras 3 ----------------------------------------------------------------------------------------------------------


def _two_inputs() -> keras.Model:
    layers = keras.layers
    a, b = keras.Input(VECTOR, name="a"), keras.Input((2,), name="b")
    outputs = {
        "sum": layers.Dense(2, name="dense")(a) + b,
        "activated": layers.Dense(4, "hard_sigmoid", name="hard")(b),
    }
    return keras.Model({"b": b, "a": a}, outputs, name="two")


class _Listed(keras.Model):
    """Takes a list of one tensor."""

    def __init__(self) -> None:
        super().__init__(name="listed")
        self.dense = keras.layers.Dense(2)

    def call(self, tensors: Any) -> Any:
        return [self.dense(tensors[0])]


def _listed() -> keras.Model:
    model = _Listed()
    model([np.zeros((1, 3), np.float32)])
    return model


def _nested_embedding() -> keras.Model:
    layers = keras.layers
    indices = keras.Input((4,), name="indices")
    nested = keras.Sequential([keras.Input((4,)), layers.Embedding(2, 3), layers.Flatten()])
    return keras.Model(indices, nested(indices))


def _half() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input(VECTOR)
    return keras.Model(inputs, layers.Dense(8, "tanh", dtype="mixed_float16")(inputs))


@pytest.mark.parametrize("make", [_two_inputs, _listed, _nested_embedding, _half])
def test_prepare_proves_that_it_computes_the_same_when_the_model_is_of_keras_3(
    make: Callable[[], keras.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def recorded(before: Any, after: Any, step: str, *tolerance: float) -> None:
        steps.append((step, *tolerance))
        require_same_function(before, after, step, *tolerance)

    monkeypatch.setattr(keras3, "require_same_function", recorded)
    model = make()
    prepared = prepare(model)
    assert prepared.rewrites[0].step == "rebuild in tf_keras"
    assert steps == [("rebuild in tf_keras", 1e-2 if make is _half else 1e-5)]


def test_prepare_names_the_step_when_a_model_of_keras_3_is_rebuilt_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras3_rebuild.Rebuild, "copy_weights", lambda self: None)
    with pytest.raises(ValueError, match="model 'two': step 'rebuild in tf_keras' would change what it computes by"):
        prepare(_two_inputs())


# --- Proof ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([0.0, 4.0], [0.0, 3.0], 0.25),
        ([2.0, 2.0], [2.0, 1.0], 0.5),  # of a constant output
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1.0], np.inf),
        ([1.0, 2.0], [[1.0, 2.0]], np.inf),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([np.inf, 1.0, 3.0], [np.inf, 1.0, 2.0], 0.5),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.nan], [np.nan], np.inf),  # nothing was compared
        ([], [], 0.0),
        ([True, False], [True, True], 1.0),
    ],
)
def test_difference_is_a_fraction_of_the_range_when_comparable(before: Any, after: Any, expected: float) -> None:
    assert difference(before, after) == expected


def test_random_inputs_are_indices_when_they_are_integers_or_embedded() -> None:
    inputs = [
        tf_keras.Input((4,), name="embedded"),
        tf_keras.Input((4,), name="integers", dtype="int32"),
        tf_keras.Input((4,), name="numbers"),
        tf_keras.Input((None, 2), batch_size=3, name="sized"),
        tf_keras.Input((4,), name="nested"),
    ]
    outputs = [K.Embedding(2, 3)(inputs[0]), *inputs[1:4], chain((4,), K.Embedding(2, 3), name="inner")(inputs[4])]
    embedded, integers, numbers, sized, nested = arrays = random_inputs(tf_keras.Model(inputs, outputs))
    assert {*embedded.ravel()} == {*integers.ravel()} == {*nested.ravel()} == {0, 1}
    assert [array.dtype for array in arrays] == ["float32", "int32", "float32", "float32", "float32"]
    assert len({*numbers.ravel()}) == 8
    assert sized.shape == (3, 32, 2)
