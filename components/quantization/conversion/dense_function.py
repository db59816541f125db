"""A Keras model or SavedModel as one function of dense inputs with static shapes: what the converter is given."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.input_shapes import InputShapes, KnownShape, fixed_shapes

# The signature of a SavedModel that takes dense, transformed features; written by components.quantization.qat.export.
DENSE_SIGNATURE = "serving_dense"

# What TensorFlow leaves as it is, of names of arguments.
_PLAIN = re.compile("[A-Za-z][A-Za-z0-9_]*")

Signature = dict[str, tf.TensorSpec]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DenseFunction:
    """A traced function for batches of one.

    Attributes:
      concrete: The function; takes its inputs by `arguments` and returns the outputs by name.
      inputs: The specs of its inputs by name, in the order of the model; of a SavedModel, sorted.
      outputs: The names of its outputs, in that order.
      trackable: What holds its variables.
    """

    concrete: Any
    inputs: Signature
    outputs: tuple[str, ...]
    trackable: Any

    @property
    def arguments(self) -> dict[str, str]:
        """What the function calls each input: its name, or, if Python has no such names, a number."""
        return _arguments(self.inputs)

    @property
    def input_tensors(self) -> dict[str, Any]:
        """The tensors of the graph that are fed, by name."""
        arguments = self.arguments
        tensors = dict(zip(sorted(arguments.values()), self.concrete.inputs, strict=False))  # captured ones follow
        return {name: tensors[argument] for name, argument in arguments.items()}

    @property
    def output_tensors(self) -> dict[str, Any]:
        """The tensors of the graph that are returned, by name."""
        tensors = dict(zip(sorted(self.outputs), self.concrete.outputs, strict=True))
        return {name: tensors[name] for name in self.outputs}


def dense_function(model: tf_keras.Model | str | Path, input_shapes: InputShapes = None) -> DenseFunction:
    """Traces a model for batches of one.

    Args:
      model: A tf_keras model, or the path of a SavedModel with signature "serving_dense" (else "serving_default").
      input_shapes: Shapes of inputs that have unknown dimensions, without the batch: by name, or that of the only
        input.

    Raises:
      ValueError: If it is neither, an input has an unknown dimension, or a shape does not fit.
    """
    function, signature, trackable = _of_saved_model(model) if isinstance(model, str | Path) else _of_keras(model)
    known = {name: _without_batch(spec.shape) for name, spec in signature.items()}
    fixed = {
        name: tf.TensorSpec([1, *shape], signature[name].dtype, name=name)
        for name, shape in fixed_shapes(known, input_shapes).items()
    }
    arguments = _arguments(fixed)
    specs = {arguments[name]: tf.TensorSpec(spec.shape, spec.dtype, arguments[name]) for name, spec in fixed.items()}

    def by_argument(**features: tf.Tensor) -> Any:
        return function(**{name: features[argument] for name, argument in arguments.items()})

    traced = tf.function(by_argument).get_concrete_function(**specs)
    # Of a Keras model its variables alone: the model itself would be saved with a trace of each of its layers.
    kept = list(traced.variables) if isinstance(trackable, tf_keras.Model) else trackable
    declared = trackable.output_names if isinstance(trackable, tf_keras.Model) else sorted(traced.structured_outputs)
    return DenseFunction(concrete=traced, inputs=fixed, outputs=tuple(declared), trackable=kept)


def loops(concrete: Any) -> tuple[str, ...]:
    """Returns what loops in a concrete function, as recurrent layers do that are not unrolled, sorted.

    Loops of a Keras LSTM are left out: the converter makes one op of them.
    """
    definition = concrete.graph.as_graph_def()
    # Keras names what a function implements: "lstm_" or "gru_" and an identifier.
    scopes = [("", definition.node)]
    scopes += [
        (function.attr["api_implements"].s.decode(), function.node_def) for function in definition.library.function
    ]
    found = {
        kind.split("_")[0] or node.name
        for kind, nodes in scopes
        if not kind.startswith("lstm_")
        for node in nodes
        if node.op in ("While", "StatelessWhile")
    }
    return tuple(sorted(found))


def _arguments(names: Iterable[str]) -> dict[str, str]:
    """Arguments by name of an input. TensorFlow changes what is no plain word, such as "my-image", and takes "self"."""
    taken = {*names, "self"}
    arguments = {}
    for position, name in enumerate(names):
        argument = name if _PLAIN.fullmatch(name) and name != "self" else f"input_{position}"
        while argument != name and argument in taken:
            argument += "_"
        arguments[name] = argument
    return arguments


def _without_batch(shape: tf.TensorShape) -> KnownShape:
    return None if shape.rank is None else tuple(shape[1:])


def _of_saved_model(path: str | Path) -> tuple[Callable[..., Any], Signature, Any]:
    if not tf.saved_model.contains_saved_model(str(path)):
        raise ValueError(f"no SavedModel at {path}; give the path of a directory with a saved_model.pb")
    loaded = tf.saved_model.load(str(path))
    key = DENSE_SIGNATURE if DENSE_SIGNATURE in loaded.signatures else "serving_default"
    if key not in loaded.signatures:
        raise ValueError(f"SavedModel {path} has no signature {DENSE_SIGNATURE!r}; export it with one")
    function = loaded.signatures[key]
    inputs = dict(sorted(function.structured_input_signature[1].items()))  # else in another order with each load
    if any(spec.dtype == tf.string for spec in inputs.values()):
        raise ValueError(
            f"signature {key!r} of SavedModel {path} takes strings, perhaps serialized examples; export one called"
            f" {DENSE_SIGNATURE!r} that takes dense features"
        )
    return function, inputs, loaded


def _of_keras(model: Any) -> tuple[Callable[..., Any], Signature, Any]:
    if not isinstance(model, tf_keras.Model):
        raise ValueError(
            f"model: got {type(model).__module__}.{type(model).__name__}, expected a tf_keras.Model or the path of a"
            " SavedModel; build the model with tf_keras, not with Keras 3"
        )
    if not model.inputs:
        raise ValueError(f"model {model.name!r} has no known inputs; begin it with a tf_keras.Input")
    names = list(model.input_names)
    inputs = {n: tf.TensorSpec(i.shape, i.dtype, name=n) for n, i in zip(names, model.inputs, strict=True)}

    def call(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(features if len(names) > 1 else features[names[0]], training=False)
        return dict(zip(model.output_names, tf.nest.flatten(outputs), strict=True))

    return call, inputs, model
