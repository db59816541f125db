"""Keras 3 models rebuilt in tf_keras: the same outputs, names and weights, or an error that names every reason."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.surgery.graph import calls
from components.quantization.surgery.keras3 import from_keras3, load_model
from components.quantization.surgery.prepare import prepare
from components.quantization.surgery.proof import difference

import small_models

leave_libraries_alone()
K = keras.layers
ops = keras.ops
_RANDOM = np.random.default_rng(1)
VECTOR = _RANDOM.normal(size=(2, 4)).astype(np.float32)
SERIES = _RANDOM.normal(size=(2, 8, 4)).astype(np.float32)
IMAGE = _RANDOM.normal(size=(2, 8, 8, 4)).astype(np.float32)
VOLUME = _RANDOM.normal(size=(2, 6, 6, 6, 2)).astype(np.float32)
INDICES = np.array([[1, 2, 3, 0, 0], [3, 4, 0, 0, 0]], np.int32)


def chain(example: np.ndarray, *layers: Any) -> keras.Model:
    """Layers, or functions of a tensor, in a row, on inputs like the example's."""
    inputs = values = keras.Input(example.shape[1:], name="x", dtype=example.dtype.name)
    for layer in layers:
        values = layer(values)
    return keras.Model(inputs, values, name="chain")


def randomized(model: keras.Model) -> keras.Model:
    random = np.random.default_rng(2)
    model.set_weights(
        [
            random.uniform(0.1, 1.0, weight.shape).astype(weight.dtype) if weight.dtype.kind == "f" else weight
            for weight in model.get_weights()
        ]
    )
    return model


def worst_difference(model: Any, built: Any, example: Any, **arguments: Any) -> float:
    olds, news = (tf.nest.flatten(m(example, **arguments)) for m in (model, built))
    return max(difference(np.asarray(old), np.asarray(new)) for old, new in zip(olds, news, strict=True))


def assert_rebuilt(model: keras.Model, example: Any) -> tf_keras.Model:
    built = from_keras3(randomized(model))
    assert worst_difference(model, built, example, training=False) <= 1e-5
    return built


_LAYERS = {
    "IMAGE": lambda: [
        K.Conv2D(4, 3, groups=2, activation="relu", dilation_rate=2),
        K.Conv2DTranspose(3, 3, strides=2, output_padding=1),
        K.Conv2DTranspose(3, 4, strides=2, padding="same"),
        K.SeparableConv2D(3, 3, depth_multiplier=2),
        K.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same"),
        K.BatchNormalization(scale=False, epsilon=0.1),
        K.BatchNormalization(axis=1),
        K.LayerNormalization(axis=[1, 2]),
        K.GroupNormalization(2),
        K.UnitNormalization(),
        K.LeakyReLU(negative_slope=0.1),
        K.ReLU(3.0, 0.1, 0.2),
        K.PReLU(shared_axes=[1, 2]),
        K.ELU(0.5),
        K.Softmax(axis=1),
        K.Rescaling([1.0, 2.0, 3.0, 4.0], 1.0),
        K.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[4.0, 3.0, 2.0, 1.0]),
        K.Normalization(axis=None, mean=1.0, variance=4.0, invert=True),
        K.ZeroPadding2D(((1, 2), (0, 3))),
        K.Cropping2D(((1, 2), (0, 3))),
        K.UpSampling2D(3, interpolation="bilinear"),
        K.MaxPooling2D(3, strides=2, padding="same"),
        K.AveragePooling2D(3, strides=2, padding="same"),
        K.GlobalAveragePooling2D(),
        K.GlobalMaxPooling2D(keepdims=True),
        K.Flatten(),
        K.Reshape((4, -1)),
        K.Permute((3, 1, 2)),
        K.Dropout(0.5, seed=1),
        K.SpatialDropout2D(0.5),
        K.GaussianNoise(0.1),
        K.AlphaDropout(0.1),
        K.Identity(),
        K.EinsumDense("abcd,de->abce", (None, None, 3), bias_axes="e"),
        K.Resizing(5, 5),
        K.CenterCrop(4, 4),
        K.RandomFlip(),
        K.RandomContrast(0.1),
        K.ActivityRegularization(l2=0.1),
        K.TimeDistributed(K.Conv1D(2, 3, activation="hard_sigmoid")),
        K.ConvLSTM1D(3, 3),
    ],
    "SERIES": lambda: [
        K.Conv1D(3, 3, padding="causal"),
        K.Conv1DTranspose(3, 3, strides=2),
        K.SeparableConv1D(3, 3),
        K.DepthwiseConv1D(3),
        K.LSTM(3, return_sequences=True, go_backwards=True),
        K.LSTM(3, unroll=True, recurrent_activation="hard_sigmoid", activation="leaky_relu"),
        K.GRU(3, return_state=True),
        K.GRU(3, reset_after=False, activation="relu6"),
        K.SimpleRNN(3),
        K.Bidirectional(K.LSTM(3, recurrent_activation="hard_sigmoid", return_sequences=True), merge_mode="sum"),
        K.Bidirectional(K.GRU(3), backward_layer=K.GRU(3, go_backwards=True), merge_mode=None),
        K.RNN([K.GRUCell(3), K.SimpleRNNCell(2)]),
        K.ZeroPadding1D(2),
        K.Cropping1D(1),
        K.UpSampling1D(2),
        K.MaxPooling1D(),
        K.GlobalAveragePooling1D(),
        K.TimeDistributed(K.Dense(3)),
        K.Masking(),
        K.Dense(3, activation=K.LeakyReLU(0.1)),
        K.Dense(3, activation=tf.nn.relu6),
        K.Dense(3, activation=lambda x: keras.ops.relu(x) * 2),
        K.Lambda(lambda x, gain: x * gain + 1, arguments={"gain": 2.0}),
    ],
    "VOLUME": lambda: [
        K.Conv3D(2, 3),
        K.Conv3DTranspose(2, 3, strides=2),
        K.MaxPooling3D(),
        K.GlobalMaxPooling3D(),
        K.ZeroPadding3D(),
        K.UpSampling3D(2),
    ],
}


@pytest.mark.parametrize("kind", _LAYERS)
def test_from_keras3_computes_the_same_when_layers_of_all_classes_are_rebuilt(kind: str) -> None:
    inputs = keras.Input(globals()[kind].shape[1:], name="x")
    layers = _LAYERS[kind]()
    outputs = {str(number): layer(inputs) for number, layer in enumerate(layers)}
    model = randomized(keras.Model(inputs, outputs))
    built = from_keras3(model)
    olds, news = model(globals()[kind], training=False), built(globals()[kind], training=False)
    for number, layer in enumerate(layers):
        pairs = zip(tf.nest.flatten(olds[str(number)]), tf.nest.flatten(news[str(number)]), strict=True)
        assert max(difference(*pair) for pair in pairs) <= 1e-5, layer
    kept = {layer.name for layer in model.layers if not isinstance(layer, K.Lambda)}
    assert kept <= {layer.name for layer in built.layers}


_ACTIVATIONS = (
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear"
    " log_sigmoid log_softmax mish relu relu6 selu sigmoid silu swish soft_shrink softmax softplus softsign sparse_plus"
    " sparse_sigmoid squareplus tanh tanh_shrink"
)


def test_from_keras3_computes_the_same_when_activations_are_named() -> None:
    inputs = keras.Input((4,), name="x")
    names = _ACTIVATIONS.split()
    model = keras.Model(
        inputs,
        {
            name: (K.Activation(name)(inputs), K.Dense(4, activation=name, name=f"dense_{name}")(inputs))
            for name in names
        },
    )
    built = from_keras3(randomized(model))
    olds, news = model(VECTOR), built(VECTOR)
    for name in names:
        assert max(difference(old, new) for old, new in zip(olds[name], news[name], strict=True)) <= 1e-5, name


def _binary_operations(x: Any) -> dict[str, Any]:
    whole = ops.cast(x * 3, "int32")
    return {
        "scalars": (x + 1, 1 - x, 2 * x, x / 2, 1 / (x + 9), x // 2, x % 2, x**2, -x, abs(x)),
        "constants": x * np.arange(4) + np.ones((8, 1), np.float32),
        "matmul": (x @ np.ones((4, 2), np.float32), ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
        "products": (ops.dot(x, np.ones((4, 2), np.float32)), ops.einsum("bij,bkj->bik", x, x)),
        "bounds": (ops.maximum(x, 0), ops.minimum(x, 1.0), ops.clip(x, 0, 1)),
        "comparison": (ops.where(x > 0, x, 0), ops.cast(x >= 0.5, "int32") + 1, ops.logical_and(x > 0, x < 1)),
        "integers": (whole * 2 + whole, whole + 0.5, ops.mean(whole, 1), whole // 2),
    }


def _unary_operations(x: Any) -> dict[str, Any]:
    return {
        "functions": [f(x) for f in (ops.exp, ops.square, ops.sign, ops.floor, ops.round, ops.erf, ops.sin, ops.tanh)],
        "roots": (ops.sqrt(abs(x)), ops.rsqrt(x * x + 1), ops.log(abs(x) + 1)),
        "relu": [keras.activations.relu(x, *a) for a in ((0.0,), (0.1,), (0.0, 3.0), (0.1, 4.0, 0.2))],
        "activations": (ops.gelu(x), ops.gelu(x, False), ops.softmax(x), ops.leaky_relu(x), ops.threshold(x, 0.1, 0.2)),
    }


def _reductions(x: Any) -> dict[str, Any]:
    kinds = (ops.mean, ops.max, ops.min, ops.sum, ops.prod, ops.std, ops.var, ops.logsumexp)
    return {
        **{kind.__name__: (kind(x, 1), kind(x, (1, 2), keepdims=True)) for kind in kinds},
        "logical": (ops.all(x > 0, 1), ops.any(x > 0, 1), ops.logical_not(x > 0)),
        "arg": (ops.argmax(x, -1), ops.argmin(x, 1, keepdims=True), ops.top_k(x, 2)),
        "other": (ops.cumsum(x, 1), ops.normalize(x)),
    }


def _shapes(x: Any) -> dict[str, Any]:
    return {
        "reshape": (ops.reshape(x, (-1, 8, 2, 2)), ops.squeeze(ops.expand_dims(x, (1, -1)), (1, -1))),
        "transpose": (ops.transpose(x, (0, 2, 1)), ops.moveaxis(x, 1, -1), ops.swapaxes(x, 1, 2)),
        "join": (ops.concatenate([x, x], -1), ops.stack([x, x], 1)),
        "split": (ops.split(x, 2, -1), ops.split(x, [1, 3], 1), ops.unstack(x, axis=-1)),
        "get": (x[:, 1:, ::2], x[..., 0], x[:, None], x[:, -1]),
        "pad": (
            ops.pad(x, [[0, 0], [1, 2], [0, 0]], constant_values=3.0),
            ops.pad(x, ((0, 0), (1, 2), (0, 0)), "reflect"),
        ),
        "repeat": (ops.tile(x, (1, 2, 1)), ops.tile(x, 2), ops.repeat(x, 2, 1)),
        "move": (ops.flip(x, 1), ops.roll(x, 1, 1), ops.take(x, [0, 2], axis=1)),
        "pool": (ops.max_pool(x, 2, 1, "same"), ops.average_pool(x, 2)),
        "one_hot": ops.one_hot(ops.cast(x > 0, "int32"), 2),
    }


@pytest.mark.parametrize("operations", [_binary_operations, _unary_operations, _reductions, _shapes])
def test_from_keras3_computes_the_same_when_operations_are_in_the_graph(operations: Any) -> None:
    inputs = keras.Input((8, 4), name="x")
    model = keras.Model(inputs, operations(inputs))
    built = from_keras3(model)
    olds, news = model(SERIES), built(SERIES)
    for name in olds:
        pairs = zip(tf.nest.flatten(olds[name]), tf.nest.flatten(news[name]), strict=True)
        assert max(difference(*pair) for pair in pairs) <= 1e-5, name


def _embedded(x: Any) -> Any:
    return K.Embedding(7, 4, mask_zero=True)(x)


@pytest.mark.parametrize(
    ("example", "function"),
    [
        (INDICES, lambda x: K.LSTM(3)(_embedded(x))),
        (INDICES, lambda x: K.GlobalAveragePooling1D()(K.Bidirectional(K.GRU(3, return_sequences=True))(_embedded(x)))),
        (INDICES.astype(np.float32), lambda x: K.Embedding(7, 4)(x)),
        (SERIES, lambda x: K.LSTM(3)(x, mask=x[:, :, 0] > -1)),
        (SERIES, lambda x: K.LSTM(4)(x, initial_state=[x[:, 0], x[:, 1]])),
        (SERIES, lambda x: K.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)),
        (
            SERIES,
            lambda x: K.MultiHeadAttention(2, 3, value_dim=5, output_shape=7, use_bias=False)(query=x, value=x[:, :3]),
        ),
        (SERIES, lambda x: K.Attention(use_scale=True)([x, x])),
        (VECTOR, lambda x: K.Dot(1, normalize=True)([x, x * 2])),
        (VECTOR, lambda x: K.Average()([K.Add()([x, x]), K.Subtract()([x, x * 3]), K.Multiply()([x, x])])),
        (VECTOR, lambda x: K.Concatenate()([K.Maximum()([x, x * 2]), K.Minimum()([x, x * 2])])),
        (INDICES, lambda x: K.CategoryEncoding(5, "multi_hot")(x)),
        (IMAGE, lambda x: keras.ops.image.resize(x, (5, 5), antialias=True)),
        ((IMAGE * 50).astype(np.uint8), lambda x: K.Rescaling(1 / 255)(x)),
    ],
)
def test_from_keras3_computes_the_same_when_layers_take_masks_states_or_several_inputs(
    example: Any, function: Any
) -> None:
    assert_rebuilt(chain(example, function), example)


def _adapted(layer: Any, example: np.ndarray) -> Any:
    layer.adapt(example)
    return layer


class Doubling(keras.layers.Layer):
    """Two layers of Keras, which TimeDistributed calls."""

    def __init__(self) -> None:
        super().__init__(name="doubling")
        self.dense = K.Dense(3, name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return ops.tanh(self.dense(x)) * 2

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 3)


@pytest.mark.parametrize(
    "inside",
    [
        lambda: keras.Sequential([K.Dense(3), K.BatchNormalization(), K.Dense(2)]),
        lambda: keras.Sequential([keras.Input((4,)), K.Dense(3, name="dense", trainable=False)], name="frozen"),
        lambda: Doubling(),
        lambda: K.Lambda(lambda x: x * 2),
        lambda: K.Dense(4, activation="glu"),
        lambda: K.TimeDistributed(keras.Sequential([K.Reshape((2, 2)), K.Flatten()])),
    ],
)
def test_from_keras3_computes_the_same_when_time_distributed_calls_what_becomes_several_layers(inside: Any) -> None:
    layer = inside()
    example = IMAGE if isinstance(layer, K.TimeDistributed) else SERIES
    model = chain(example, K.TimeDistributed(layer, name="each"))
    built = assert_rebuilt(model, example)
    assert built.get_layer("each").layer.name == layer.name
    assert len(built.trainable_weights) == len(model.trainable_weights)
    assert worst_difference(model, prepare(model).model, example, training=False) <= 1e-5


@pytest.mark.parametrize(
    ("example", "layer"),
    [
        (VECTOR, lambda: _adapted(K.Discretization(num_bins=4), VECTOR)),
        (INDICES, lambda: _adapted(K.IntegerLookup(), INDICES)),
        (INDICES, lambda: K.IntegerLookup(vocabulary=[1, 3], output_mode="tf_idf", idf_weights=[0.1, 0.2])),
        (INDICES, lambda: _adapted(K.IntegerLookup(output_mode="tf_idf"), INDICES)),
    ],
)
def test_from_keras3_keeps_what_a_layer_has_been_given_or_has_found_out_when_it_looks_up(
    example: np.ndarray, layer: Any
) -> None:
    model = chain(example, layer())
    assert worst_difference(model, from_keras3(model), example) <= 1e-5


def test_from_keras3_warns_when_training_no_longer_normalizes_a_kernel(caplog: pytest.LogCaptureFixture) -> None:
    model = chain(IMAGE, K.SpectralNormalization(K.Conv2D(3, 3, activation="hard_silu"), name="normalized"))
    built = assert_rebuilt(model, IMAGE)
    assert isinstance(built.get_layer("normalized"), tf_keras.layers.Conv2D)
    assert "normalized: it is rebuilt without its SpectralNormalization" in caplog.text


def test_from_keras3_keeps_the_structure_when_models_are_nested_and_layers_shared() -> None:
    inner = keras.Sequential([keras.Input((4,)), K.Dense(3, name="inner_dense"), K.ReLU()], name="inner")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = K.Dense(3, name="shared")
    outputs = {"sum": K.Add(name="added")([inner(a), inner(b)]), "difference": shared(a) - shared(b)}
    model = keras.Model({"a": a, "b": b}, outputs, name="outer")
    built = assert_rebuilt(model, {"a": VECTOR, "b": VECTOR * 2})
    assert built.name == "outer"
    assert built.input_names == ["a", "b"]
    assert built.output_names == model.output_names
    assert [call.layer.name for call in calls(built)].count("shared") == 2
    assert [call.layer.name for call in calls(built)].count("inner") == 2
    assert len(built.weights) == len(model.weights) == 4


def test_from_keras3_keeps_names_of_outputs_and_of_layers_when_an_activation_becomes_operations() -> None:
    model = chain(VECTOR, K.Dense(3, activation="hard_silu", name="y"))
    built = assert_rebuilt(model, VECTOR)
    assert built.output_names == ["y"]
    assert built.get_layer("y").activation is tf_keras.activations.linear
    assert built.layers[-1].name == "y_hard_silu"


def test_from_keras3_keeps_what_is_trainable_and_regularized_when_layers_say_so() -> None:
    frozen = K.Dense(3, trainable=False, name="frozen")
    inner = keras.Sequential([keras.Input((4,)), K.Dense(4), frozen], name="inner")
    model = chain(VECTOR, inner, K.Dense(2, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2), name="regular"))
    built = from_keras3(model)
    assert not built.get_layer("inner").get_layer("frozen").trainable
    assert len(built.trainable_weights) == len(model.trainable_weights) == 4
    regularizer = built.get_layer("regular").kernel_regularizer
    assert (float(regularizer.l1), float(regularizer.l2)) == pytest.approx((0.1, 0.2))


def test_from_keras3_tells_layers_when_it_is_training() -> None:
    model = chain(VECTOR, K.Dense(64, use_bias=False, name="y"), K.Dropout(0.5), K.BatchNormalization(momentum=0.5))
    built = from_keras3(model)
    assert np.any(np.asarray(built(VECTOR, training=True)) != np.asarray(built(VECTOR, training=False)))
    moved = built.layers[-1].moving_mean.numpy()
    assert np.any(moved != 0)
    assert np.all(np.asarray(built(VECTOR, training=False)) == np.asarray(built(VECTOR, training=False)))


def test_from_keras3_keeps_inference_mode_when_a_backbone_is_called_with_it() -> None:
    backbone = keras.Sequential([keras.Input((4,)), K.BatchNormalization(name="bn")], name="backbone")
    inputs = keras.Input((4,), name="x")
    built = from_keras3(keras.Model(inputs, backbone(inputs, training=False)))
    built(VECTOR, training=True)
    assert np.all(built.get_layer("backbone").get_layer("bn").moving_mean.numpy() == 0)


def test_from_keras3_computes_in_float32_when_the_policy_is_mixed() -> None:
    model = chain(VECTOR, K.Dense(3, dtype="mixed_float16"), lambda x: x * 2, K.Dense(2, dtype="mixed_float16"))
    built = from_keras3(randomized(model))
    assert built.output.dtype == tf.float32
    assert worst_difference(model, built, VECTOR) < 1e-2


def test_from_keras3_keeps_the_statistics_when_a_normalization_was_adapted() -> None:
    layer = K.Normalization()
    layer.adapt(VECTOR)
    model = chain(VECTOR, layer)
    assert worst_difference(model, from_keras3(model), VECTOR) <= 1e-5


class Residual(keras.layers.Layer):
    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = K.Dense(units, activation="relu6", name="dense")
        self.dropout = K.Dropout(0.5, name="dropout")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return x + self.dropout(self.dense(x), training=training)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.first = Residual(4, name="first")
        self.second = Residual(4, name="second")

    def call(self, x: Any) -> Any:
        return ops.tanh(self.second(self.first(x["a"] + x["b"])))


def test_from_keras3_captures_calls_when_models_and_layers_are_subclassed() -> None:
    model = Subclassed()
    example = {"a": VECTOR, "b": VECTOR}
    model(example)
    built = assert_rebuilt(model, example)
    assert {"first/dense", "first/dropout", "second/dense"} <= {layer.name for layer in built.layers}
    assert built.input_names == ["a", "b"]
    assert np.any(np.asarray(built(example, training=True)) != np.asarray(built(example, training=False)))


class Custom(keras.Model):
    """A model without a call, which tests add."""

    def __init__(self) -> None:
        super().__init__(name="custom")
        self.dense = K.Dense(3, name="dense")
        self.dropout = K.Dropout(0.5, name="dropout")
        self.bn = K.BatchNormalization(name="bn")


def custom(call: Any) -> keras.Model:
    model = type("Custom", (Custom,), {"call": call})()
    model(VECTOR)
    return model


def _only_in_training(self: Any, x: Any, training: bool | None = None) -> Any:
    x = self.dense(x)
    if training:
        x = self.dropout(x)
    return self.bn(x, training=training)


def test_from_keras3_keeps_layers_that_only_training_calls_when_they_do_nothing_else() -> None:
    built = assert_rebuilt(custom(_only_in_training), VECTOR)
    assert np.any(np.asarray(built(VECTOR, training=True)) != np.asarray(built(VECTOR, training=False)))
    assert np.any(built.get_layer("bn").moving_mean.numpy() != 0)


def _branches_on_values(self: Any, x: Any) -> Any:
    x = self.dense(x)
    if ops.sum(x) > 0:
        return x
    return -x


def _converts(self: Any, x: Any) -> Any:
    return self.dense(x) * np.mean(x)


def _runs_python(self: Any, x: Any) -> Any:
    return tf.py_function(np.tanh, [self.dense(x)], tf.float32)


def _calls_one_of_two(self: Any, x: Any) -> Any:
    x = self.dense(x)
    return ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x)


def _computes_otherwise(self: Any, x: Any, training: bool | None = None) -> Any:
    return self.dense(x) * 2 if training else self.dense(x)


@pytest.mark.parametrize(
    ("call", "line", "why"),
    [
        (_branches_on_values, "if ops.sum(x) > 0:", "takes the truth or the length of a tensor"),
        (_converts, "return self.dense(x) * np.mean(x)", "KerasTensor is symbolic"),
        (_runs_python, "return tf.py_function(np.tanh, [self.dense(x)], tf.float32)", "takes Python functions"),
        (_calls_one_of_two, "return ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x)", "ops.cond() takes Python"),
        (_computes_otherwise, "return self.dense(x) * 2 if training else self.dense(x)", "branches on `training`"),
    ],
)
@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer 'custom'")  # Keras, of layers that are not called
def test_from_keras3_names_the_line_when_the_call_of_a_model_cannot_be_traced(call: Any, line: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"'custom' \(Custom\)") as error:
        from_keras3(custom(call))
    assert "test_keras3.py:" in str(error.value)
    assert f"`{line}`" in str(error.value)
    assert why in str(error.value)


class Gain(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(shape[-1],))

    def call(self, x: Any) -> Any:
        return x * self.gain


class Cell(K.SimpleRNNCell):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(3, **kwargs)


class Branching(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x if ops.sum(x) > 0 else -x

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


class Training(keras.layers.Layer):
    def call(self, x: Any, training: bool | None = None) -> Any:
        return x + 1 if training else x


def test_from_keras3_names_everything_that_it_cannot_rebuild_when_there_are_several() -> None:
    model = chain(
        VECTOR,
        Gain(name="gain"),
        Branching(name="branching"),
        Training(name="training"),
        K.Dense(4, name="fine"),
        K.Reshape((2, 2, 1)),
        K.Resizing(4, 4, pad_to_aspect_ratio=True, name="resizing"),
        ops.sort,
        keras.Sequential([K.Reshape((16, 1)), K.LSTM(3, activation="mish", recurrent_activation="celu", name="lstm")]),
    )
    with pytest.raises(ValueError, match="expected none") as error:
        from_keras3(model)
    message = str(error.value)
    assert "got 6 parts" in message
    assert "'gain/multiply" in message
    assert "(Multiply) takes a weight directly" in message
    assert "'branching' (Branching) cannot be traced at test_keras3.py:" in message
    assert "`return x if ops.sum(x) > 0 else -x`" in message
    assert "'training' (Training) branches on `training`" in message
    assert "'resizing' (Resizing) is set to pad_to_aspect_ratio=True" in message
    assert "(Sort) is an operation without a counterpart" in message
    assert "'lstm' (LSTM) computes inside with 'celu'" in message
    assert "'fine'" not in message


@pytest.mark.parametrize(
    ("example", "layer", "why"),
    [
        (
            SERIES,
            lambda: K.Bidirectional(K.LSTM(3, activation="celu", name="lstm")),
            "calls 'forward_lstm' .LSTM., which",
        ),
        (INDICES, lambda: K.CategoryEncoding(5, sparse=True), "returns sparse tensors"),
        ((IMAGE * 9).astype(np.uint8), lambda: K.Resizing(4, 4), "rounds what it makes of uint8"),
        (SERIES, lambda: K.TimeDistributed(keras.Sequential([Gain()], name="part")), "calls 'part', which cannot be"),
        (SERIES, lambda: K.RNN(Cell(name="cell")), "calls 'cell' .Cell., which is a class of your own"),
    ],
)
def test_from_keras3_says_why_when_a_layer_cannot_be_rebuilt(example: np.ndarray, layer: Any, why: str) -> None:
    tried = layer()
    with pytest.raises(ValueError, match=rf"'{tried.name}' \({type(tried).__name__}\) {why}"):
        from_keras3(chain(example, tried))


def test_from_keras3_names_the_input_when_it_takes_strings() -> None:
    inputs = keras.Input((1,), dtype="string", name="words")
    with pytest.raises(ValueError, match=r"'words' \(InputLayer\) takes strings"):
        from_keras3(keras.Model(inputs, K.Hashing(3)(inputs)))


def test_from_keras3_says_so_when_the_model_is_not_built() -> None:
    with pytest.raises(ValueError, match=r"'s' \(Sequential\) is not built; give it a keras.Input"):
        from_keras3(keras.Sequential([K.Dense(2)], name="s"))


def test_from_keras3_replaces_characters_when_tensorflow_does_not_allow_a_name() -> None:
    built = assert_rebuilt(chain(VECTOR, K.Dense(2, name="my layer"), K.ReLU(name="_end")), VECTOR)
    assert [layer.name for layer in built.layers] == ["x", "my_layer", "layer_end"]


def _convolutional(library: Any) -> Any:
    layers = library.layers
    inputs = library.Input((8, 8, 4), name="x")
    values = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu", name="conv")(inputs))
    return library.Model(inputs, layers.Dense(2, name="y")(layers.GlobalAveragePooling2D()(values)))


@pytest.mark.parametrize("library", [keras, tf_keras])
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # Keras, saving
def test_load_model_returns_a_tf_keras_model_when_either_keras_saved_it(
    library: Any, ending: str, tmp_path: Path
) -> None:
    model = _convolutional(library)
    model.save(tmp_path / f"model.{ending}")
    loaded = load_model(tmp_path / f"model.{ending}")
    assert isinstance(loaded, tf_keras.Model)
    assert loaded.get_layer("conv").activation is tf_keras.activations.relu
    assert worst_difference(model, loaded, IMAGE, training=False) <= 1e-5


def test_load_model_returns_a_tf_keras_model_when_it_is_a_saved_model(tmp_path: Path) -> None:
    model = small_models.dense()
    model.save(tmp_path / "model", save_format="tf")
    assert worst_difference(model, load_model(tmp_path / "model"), VECTOR[:, :3]) <= 1e-5


def _weights_only(path: Path) -> Path:
    _convolutional(tf_keras).save_weights(path / "model.weights.h5")
    return path / "model.weights.h5"


def _exported(path: Path) -> Path:
    tf.saved_model.save(tf.Module(), str(path / "exported"))
    return path / "exported"


def _text(path: Path) -> Path:
    (path / "model.keras").write_text("no model")
    return path / "model.keras"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path / "missing.keras", "got nothing there"),
        (_weights_only, "got no whole Keras model"),
        (_text, "got no whole Keras model"),
        (_exported, "got a SavedModel without a Keras model"),
    ],
)
def test_load_model_says_what_is_there_when_it_is_no_model(write: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(write(tmp_path))


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # Keras, saving
def test_load_model_names_the_class_when_it_is_not_registered(tmp_path: Path) -> None:
    chain(VECTOR, Gain(name="gain")).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="keras cannot load it, got TypeError: Could not locate class 'Gain'; import"):
        load_model(tmp_path / "model.keras")


@pytest.mark.long
@pytest.mark.parametrize(("name", "size"), [("MobileNetV3Small", 64), ("EfficientNetB0", 64), ("NASNetMobile", 64)])
def test_from_keras3_computes_the_same_when_an_application_is_rebuilt(name: str, size: int) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    example = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    assert worst_difference(model, from_keras3(model), example, training=False) <= 1e-5
