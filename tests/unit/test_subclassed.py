"""Subclassed models captured as functional ones, or the line that prevents it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.surgery.graph import calls
from components.quantization.surgery.proof import difference
from components.quantization.surgery.subclassed import captured

import small_models

leave_libraries_alone()
K = tf_keras.layers
_RANDOM = np.random.default_rng(1)
VECTOR = _RANDOM.normal(size=(4, 3)).astype(np.float32)
IMAGE = _RANDOM.normal(size=(2, 8, 8, 3)).astype(np.float32)


class Block(K.Layer):
    """A layer of layers, without weights of its own."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv = K.Conv2D(filters, 3, padding="same", name="conv")
        self.normalization = K.BatchNormalization(name="bn")

    def call(self, x: Any, training: bool | None = None) -> Any:
        return tf.nn.relu(self.normalization(self.conv(x), training=training))


class Head(tf_keras.Model):
    """A model that does not mention training."""

    def __init__(self) -> None:
        super().__init__(name="head")
        self.pool = K.GlobalAveragePooling2D(name="pool")
        self.dropout = K.Dropout(0.5, name="dropout")
        self.dense = K.Dense(3, name="dense")

    def call(self, x: Any) -> Any:
        return self.dense(self.dropout(self.pool(x)))


class Net(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.blocks = [Block(4, name="first"), Block(4, name="second")]
        self.tail = tf_keras.Sequential([K.Conv2D(4, 1, name="conv"), Block(4, name="block")], name="tail")
        self.frozen = K.BatchNormalization(name="frozen")
        self.head = Head()

    def call(self, x: Any, training: bool | None = None) -> Any:
        for block in self.blocks:
            x = block(x, training=training)
        x = self.frozen(self.tail(x), training=False)
        return {"scores": self.head(x), "means": tf.reduce_mean(x, [1, 2])}


class Custom(tf_keras.Model):
    """A model without a call, which tests add."""

    def __init__(self) -> None:
        super().__init__(name="custom")
        self.dense = K.Dense(3, name="dense")
        self.dropout = K.Dropout(0.5, name="dropout")
        self.bn = K.BatchNormalization(name="bn")
        self.embedding = K.Embedding(3, 3, name="embedding")
        self.gain = tf.Variable([2.0, 1.0, 1.0], name="gain")
        self.steps = tf.Variable(0.0, trainable=False, name="steps")


def custom(call: Callable[..., Any], example: Any = VECTOR) -> tf_keras.Model:
    model = type("Custom", (Custom,), {"call": call})()
    model(example)
    return model


def told(model: tf_keras.Model) -> dict[str, Any]:
    return {call.layer.name: call.kwargs.get("training") for call in calls(model)}


def test_captured_computes_the_same_with_its_own_weights_when_layers_and_models_are_nested() -> None:
    model = Net()
    model(IMAGE)
    for variable in model.trainable_variables:
        variable.assign_add(tf.ones_like(variable) * 0.1)
    after = captured(model)
    olds, news = model(IMAGE, training=False), after(IMAGE, training=False)
    assert max(difference(olds[key], news[key]) for key in ("scores", "means")) <= 1e-5
    names = ["first/conv", "second/conv", "tail/conv", "tail/block/conv", "tail/block/bn", "frozen", "head/dense"]
    assert set(names) <= {layer.name for layer in after.layers}
    assert after.output_names == ["means", "scores"]
    assert after.name == "net"
    assert len(after.weights) == len(model.weights)
    assert not {id(weight) for weight in after.weights} & {id(weight) for weight in model.weights}


def test_captured_moves_the_same_statistics_when_it_is_training() -> None:
    model = Net()
    model(IMAGE)
    after = captured(model)
    means = [m(IMAGE, training=True)["means"] for m in (model, after)]
    assert difference(*means) <= 1e-5
    assert difference(model.blocks[0].normalization.moving_mean, after.get_layer("first/bn").moving_mean) <= 1e-5
    assert np.all(after.get_layer("frozen").moving_mean.numpy() == 0)
    scores = [after(IMAGE, training=mode)["scores"].numpy() for mode in (True, False, False)]
    assert np.any(scores[0] != scores[1])
    assert np.all(scores[1] == scores[2])


def _forwards(self: Any, x: Any, training: bool = False) -> Any:
    return self.bn(self.dropout(self.dense(x)), training=training)


def _defaults(self: Any, x: Any, training: bool | None = None) -> Any:
    if training is None:
        training = False
    return self.bn(self.dropout(self.dense(x), training=training), training=training)


def _only_in_training(self: Any, x: Any, training: bool | None = None) -> Any:
    x = self.dense(x)
    if training:
        x = self.dropout(x, training=True)
    return self.bn(x, training=training)


@pytest.mark.parametrize("call", [_forwards, _defaults, _only_in_training])
def test_captured_tells_layers_at_run_time_whether_it_is_training_when_the_call_does(call: Any) -> None:
    after = captured(custom(call))
    assert told(after) == {"dense": None, "dropout": None, "bn": None}
    after(VECTOR, training=True)
    assert np.any(after.get_layer("bn").moving_mean.numpy() != 0)


def test_captured_keeps_inference_mode_when_a_nested_model_is_called_with_it() -> None:
    backbone = tf_keras.Sequential(
        [K.InputLayer((3,)), K.Dropout(0.5, name="d"), K.BatchNormalization(name="bn")], name="b"
    )

    class Transfer(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def call(self, x: Any) -> Any:
            return self.backbone(x, training=False)

    model = Transfer()
    model(VECTOR)
    assert told(captured(model)) == {"b/d": False, "b/bn": False}


def _two_inputs(self: Any, x: Any) -> Any:
    first, second = x.values() if isinstance(x, dict) else x
    return self.dense(first) + self.dense(second)


@tf.function
def _traced(self: Any, x: Any) -> Any:
    return self.dense(x)


def test_captured_keeps_structure_and_names_of_inputs_when_there_are_several() -> None:
    example = {"a": VECTOR, "b": VECTOR * 2}
    after = captured(custom(_two_inputs, example))
    assert after.input_names == ["a", "b"]
    assert difference(custom(_two_inputs, example)(example), after(example)) != 0  # weights of another model
    assert len(captured(custom(_two_inputs, [VECTOR, VECTOR])).inputs) == 2


def test_captured_needs_no_call_when_a_shape_is_given_or_it_is_built() -> None:
    model = type("Custom", (Custom,), {"call": _forwards})()
    with pytest.raises(ValueError, match="model 'custom' is not built; call it once on a batch"):
        captured(model)
    assert captured(model, input_shape=(None, 3)).input_shape == (None, 3)
    assert captured(custom(_traced)).get_layer("dense").units == 3


def test_captured_returns_the_model_itself_when_it_is_functional() -> None:
    model = small_models.dense()
    assert captured(model) is model


class Gain(K.Layer):
    """A layer with a weight of its own, that stays one layer."""

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight("gain", (shape[-1],), initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.gain


class Unconfigured(Gain):
    def __init__(self, size: int) -> None:
        super().__init__(name="unconfigured")


def test_captured_keeps_a_layer_of_the_users_when_it_has_weights_of_its_own() -> None:
    class Model(tf_keras.Model):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def call(self, x: Any) -> Any:
            return self.layer(x)

    model, unconfigured = Model(Gain(name="gain")), Model(Unconfigured(3))
    model(VECTOR)
    unconfigured(VECTOR)
    assert isinstance(captured(model).get_layer("gain"), Gain)
    with pytest.raises(ValueError, match="layer 'unconfigured': got a Unconfigured that cannot be copied.*get_config"):
        captured(unconfigured)


def _branches_on_values(self: Any, x: Any) -> Any:
    if tf.reduce_sum(x) > 0:
        return self.dense(x)
    return -self.dense(x)


def _converts(self: Any, x: Any) -> Any:
    return self.dense(x) * np.mean(x)


def _loops(self: Any, x: Any) -> Any:
    x = self.dense(x)
    for _ in tf.range(tf.shape(x)[0]):
        x = x + 1.0
    return x


def _calls_one_of_two(self: Any, x: Any) -> Any:
    x = self.dense(x)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x)


def _runs_python(self: Any, x: Any) -> Any:
    return self.dense(tf.py_function(np.tanh, [x], tf.float32))


def _multiplies(self: Any, x: Any) -> Any:
    return self.dense(x) * tf.nn.relu(self.gain)


def _counts(self: Any, x: Any) -> Any:
    self.steps.assign_add(1.0)
    return self.dense(x)


def _looks_up(self: Any, x: Any) -> Any:
    return self.dense(x) + self.embedding(tf.constant([1]))


def _creates(self: Any, x: Any) -> Any:
    return K.Dense(3)(x)


def _adds_a_loss(self: Any, x: Any) -> Any:
    self.add_loss(tf.reduce_sum(x))
    return self.dense(x)


def _computes_otherwise(self: Any, x: Any, training: bool | None = None) -> Any:
    if training:
        return self.dense(x) * 2.0
    return self.dense(x)


def _contradicts(self: Any, x: Any, training: bool | None = None) -> Any:
    return self.bn(self.dense(x), training=not training)


@pytest.mark.parametrize(
    ("call", "line", "why"),
    [
        (_branches_on_values, "if tf.reduce_sum(x) > 0:", "takes the truth or the length of a tensor"),
        (_converts, "return self.dense(x) * np.mean(x)", "cannot be captured"),
        (_loops, "for _ in tf.range(tf.shape(x)[0]):", "cannot be captured"),
        (
            _calls_one_of_two,
            "return tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x)",
            "tf.cond() takes Python functions",
        ),
        (_runs_python, "return self.dense(tf.py_function(np.tanh, [x], tf.float32))", "runs Python code"),
        (_creates, "return K.Dense(3)(x)", "made in each call; make it in the constructor"),
        (_multiplies, "return self.dense(x) * tf.nn.relu(self.gain)", "uses a variable"),
        (_counts, "self.steps.assign_add(1.0)", "uses a variable"),
        (
            _looks_up,
            "return self.dense(x) + self.embedding(tf.constant([1]))",
            "the variable 'custom/embedding/embeddings:0'",
        ),
        (_adds_a_loss, "self.add_loss(tf.reduce_sum(x))", "a loss"),
        (_computes_otherwise, "if training:", "does something else in training"),
        (_contradicts, "return self.bn(self.dense(x), training=not training)", "or the contrary"),
    ],
)
def test_captured_names_the_line_when_a_call_cannot_be_captured(call: Any, line: str, why: str) -> None:
    model = custom(call)
    steps = float(model.steps)
    with pytest.raises(ValueError, match="model 'custom': ") as error:
        captured(model)
    assert f"`{line}`" in str(error.value)
    assert "test_subclassed.py:" in str(error.value)
    assert why in str(error.value)
    assert float(model.steps) == steps


class Branching(K.Layer):
    """A layer whose call tells whether it is training by what it computes."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        if training:
            x = x * 2.0
        return x


class Outer(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__(name="outer")
        self.inner = Branching(name="inner")

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.inner(x, training=training)


def test_captured_names_the_line_when_a_layer_inside_does_something_else_in_training() -> None:
    model = Outer()
    model(VECTOR)
    with pytest.raises(ValueError, match=r"does something else in training at test_subclassed.py:\d+ `if training:`"):
        captured(model)


def _reshapes(self: Any, x: Any) -> Any:
    return self.dense(tf.reshape(x, tf.shape(x) * 1))


def test_captured_names_the_layer_when_what_it_takes_has_no_shape() -> None:
    with pytest.raises(ValueError, match=r"layer 'dense': got ValueError when called again.*tf.ensure_shape"):
        captured(custom(_reshapes))


def test_captured_says_so_when_the_call_takes_several_arguments() -> None:
    class Model(tf_keras.Model):
        def call(self, a: Any, b: Any) -> Any:
            return a + b

    model = Model(name="several")
    model(VECTOR, VECTOR)
    with pytest.raises(ValueError, match="model 'several': got a call of several tensors, expected one"):
        captured(model)
