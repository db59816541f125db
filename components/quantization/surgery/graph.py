"""A functional tf_keras model as the calls that it consists of, and a way to play them again with other layers.

Every change of a model's graph, here and in components.quantization.qat, is one replay.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
import tf_keras


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of a layer.

    Attributes:
      layer: The layer.
      args: Positional arguments: nested structures of symbolic tensors and constants.
      kwargs: Arguments by name, likewise.
      inputs: The symbolic tensors among them.
      outputs: The symbolic tensors that it returns.
    """

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


# Given a call and its arguments in the new graph, returns its new outputs in the structure of the old.
Handler = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


def calls(model: tf_keras.Model) -> Iterator[Call]:
    """Yields the calls of a functional model, each after those that it depends on; inputs are no calls.

    Only the calls of this model are listed, not those that other models make of the same layers.
    """
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                yield Call(
                    layer=node.layer,
                    args=tuple(node.call_args),
                    kwargs=dict(node.call_kwargs),
                    inputs=tuple(node.keras_inputs),
                    outputs=tuple(tf.nest.flatten(node.outputs)),
                )


def replay(model: tf_keras.Model, inputs: list[Any], handler: Handler) -> Any:
    """Plays the calls of a model on new inputs.

    Args:
      model: A functional model.
      inputs: What takes the place of each of `model.inputs`.
      handler: Called for each call with its arguments in the new graph.

    Returns:
      The new outputs, in the structure of the model's.
    """
    values = {id(old): new for old, new in zip(model.inputs, inputs, strict=True)}
    play(calls(model), values, handler)
    return tf.nest.map_structure(lambda leaf: values[id(leaf)], model._nested_outputs)


def play(steps: Iterable[Call], values: dict[int, Any], handler: Handler) -> None:
    """Plays calls, and adds what they return.

    Args:
      steps: The calls, each after those that it depends on.
      values: What takes the place of each symbolic tensor in the new graph, by the id of the old one.
      handler: Called for each call with its arguments in the new graph.
    """

    def translated(argument: Any) -> Any:
        return tf.nest.map_structure(lambda leaf: values.get(id(leaf), leaf), argument)

    for call in steps:
        outputs = handler(call, translated(call.args), translated(call.kwargs))
        for old, new in zip(call.outputs, tf.nest.flatten(outputs), strict=True):
            values[id(old)] = new


def new_input(tensor: Any) -> Any:
    """Returns a new symbolic input with shape, dtype and name of an old one."""
    return tf_keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.node.layer.name)


def rebuilt(
    model: tf_keras.Model,
    handler: Handler,
    feed: Callable[[Any, Any], Any] = lambda _, new: new,
    make_input: Callable[[Any], Any] = new_input,
) -> tf_keras.Model:
    """Returns a functional model of the same outputs and name, whose calls the handler has made.

    Args:
      model: A functional model.
      handler: Makes the calls.
      feed: Given an old input and the new one, returns what goes into the calls.
      make_input: Given an old input, returns the new one.
    """
    inputs = [make_input(tensor) for tensor in model.inputs]
    outputs = replay(model, [feed(old, new) for old, new in zip(model.inputs, inputs, strict=True)], handler)
    structure = tf.nest.pack_sequence_as(model._nested_inputs, inputs)
    built = tf_keras.Model(structure, outputs, name=model.name)
    built.output_names = list(model.output_names)  # losses, signatures and users know the outputs by these
    return built


def is_nested(call: Call) -> bool:
    """Returns whether the call is of a functional model."""
    return isinstance(call.layer, tf_keras.Model) and bool(call.layer._is_graph_network)


def nested_inputs(model: tf_keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Returns what a call of a functional model gives to each of `model.inputs`."""
    return list(model._flatten_to_reference_inputs(args[0] if args else kwargs["inputs"]))


class Copies:
    """Copies of layers, one per layer however often it is called, with its weights."""

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._frozen: dict[int, bool] = {}

    def of(self, layer: Any, changes: Mapping[str, Any] | None = None, frozen: bool = False) -> Any:
        """Returns the copy of a layer; the weights follow with `copy_weights`.

        Args:
          layer: The layer.
          changes: What is changed in its configuration.
          frozen: Whether it is called inside a model that is not trained; so is what is only called so.
        """
        self._frozen[id(layer)] = frozen and self._frozen.get(id(layer), True)
        if id(layer) not in self._copies:
            copy = type(layer).from_config({**layer.get_config(), **(changes or {})})
            if isinstance(layer, tf_keras.layers.Lambda):
                copy.function = layer.function  # a configuration has its code, not all that the code refers to
            self._copies[id(layer)] = (layer, copy)
        return self._copies[id(layer)][1]

    def copy_weights(self) -> None:
        """Gives each copy the weights of its original; after the copies have been called."""
        for layer, copy in self._copies.values():
            # A layer whose activation is itself a layer with weights keeps them at the end.
            copy.set_weights(layer.get_weights()[: len(copy.weights)])
            _copy_trainable(layer, copy)
            if self._frozen[id(layer)]:
                copy.trainable = False


def _copy_trainable(layer: Any, copy: Any) -> None:
    """Gives a copy, and the layers inside it where they are the same, what is trainable of the original."""
    old, new = list(layer._flatten_layers()), list(copy._flatten_layers())
    if [type(one) for one in old] != [type(one) for one in new]:
        old, new = [layer], [copy]
    for one, other in zip(old, new, strict=True):  # an outer layer sets those inside it, which follow
        other.trainable = one.trainable


class Rewriter:
    """What a change of a graph makes its layers with: copies of old ones, and unique names for new ones."""

    def __init__(self, model: tf_keras.Model) -> None:
        """Begins a change of a functional model."""
        self._copies = Copies()
        self._old_names = {layer.name for layer in model.layers}
        self._new_names: set[str] = set()
        self._weights: list[tuple[Any, list[Any]]] = []
        self._made: dict[int, Any] = {}

    def copy(self, layer: Any, changes: Mapping[str, Any] | None = None) -> Any:
        """Returns the copy of a layer, its configuration changed as told; one however often it is asked for."""
        return self._copies.of(layer, changes)

    def unique(self, name: str, replaced: Any = None) -> str:
        """Returns a name for a new layer, with a number if another layer has it.

        Args:
          name: The name.
          replaced: The layer whose place the new one takes, so that it may have its name.
        """
        free = {replaced.name} if replaced is not None else set()
        taken = (self._old_names - free) | self._new_names
        numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
        found = next(candidate for candidate in numbered if candidate not in taken)
        self._new_names.add(found)
        return found

    def once(self, layer: Any, make: Callable[[], Any]) -> Any:
        """Returns what `make` made for a layer, made once however often the layer is called."""
        if id(layer) not in self._made:
            self._made[id(layer)] = make()
        return self._made[id(layer)]

    def give_weights(self, layer: Any, weights: list[Any]) -> None:
        """Sets the weights of a new layer when all have been called."""
        self._weights.append((layer, weights))

    def finish(self) -> None:
        """Sets all weights."""
        self._copies.copy_weights()
        for layer, weights in self._weights:
            layer.set_weights(weights)


def is_masked(call: Call) -> bool:
    """Whether a tensor that the call takes comes with a mask, such as that of padded words."""
    given = call.kwargs.get("mask")
    return given is not None or any(getattr(tensor, "_keras_mask", None) is not None for tensor in call.inputs)


def symbol(layer: Any) -> str:
    """Returns the bare name of the TensorFlow function that is the layer, such as "add"; empty for other layers."""
    return str(getattr(layer, "symbol", None) or "").rsplit(".", 1)[-1]


def consumers(model: tf_keras.Model) -> dict[int, list[Call]]:
    """Returns the calls that take each symbolic tensor, by the tensor's id; a call counts once per use."""
    found: dict[int, list[Call]] = {}
    for call in calls(model):
        for tensor in call.inputs:
            found.setdefault(id(tensor), []).append(call)
    return found
