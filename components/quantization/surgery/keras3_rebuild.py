"""The graph of a Keras 3 model made again of layers of tf_keras and functions of TensorFlow."""

import functools
import itertools
import logging
from typing import Any

import keras
import numpy as np
import tf_keras

from components.quantization.surgery.keras3_graph import (
    REMEDY,
    RefusalError,
    graph_of,
    implied_arguments,
    is_graph,
    is_of_keras,
    nodes_of,
    placeholders,
    symbols_in,
    tf_keras_dtype,
    traced,
    traced_call,
    valid_name,
)
from components.quantization.surgery.keras3_layers import (
    activates_last,
    activation_name,
    converted,
    is_convertible,
    require_floats,
)
from components.quantization.surgery.keras3_operations import operated
from components.quantization.surgery.source_lines import reason

_LOGGER = logging.getLogger(__name__)


class Rebuild:
    """One rebuilding: what has been made, and what could not be.

    Attributes:
      problems: What cannot be rebuilt: name, class, why, and what to do instead.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._made: dict[int, tuple[Any, Any]] = {}
        self._names: set[str] = set()

    def model(self, model: Any) -> tf_keras.Model | None:
        """Returns the model rebuilt, one however often it is asked for; None after a problem."""
        if id(model) not in self._made:
            before = len(self.problems)
            structures = self._rebuilt(model)
            built = None
            if structures and len(self.problems) == before:
                built = tf_keras.Model(*structures, name=valid_name(model.name))
                built._trainable = model.trainable  # the setter would overrule the layers
                built.output_names = list(getattr(model, "output_names", None) or built.output_names)
            self._made[id(model)] = (model, built)
        return self._made[id(model)][1]

    def copy_weights(self) -> None:
        """Gives each layer the weights of its original."""
        for original, made in self._made.values():
            if isinstance(original, keras.Model | keras.layers.Normalization | keras.layers.IntegerLookup):
                continue  # whose layers, and whose arguments, have them
            # A layer whose activation is a layer with weights keeps those at the end.
            weights = [np.asarray(weight, np.float32) for weight in original.get_weights()][: len(made.weights)]
            old, new = [weight.shape for weight in weights], [tuple(weight.shape) for weight in made.weights]
            if old == new:
                made.set_weights(weights)
            else:
                self._note(original, f"has weights of shapes {old} where tf_keras has {new}; {REMEDY}")

    def _rebuilt(self, model: Any) -> tuple[Any, Any] | None:
        """Inputs and outputs, in their structures."""
        try:
            graph, following, structure = graph_of(model)
        except RefusalError as error:
            self._note(model, str(error))
            return None
        inputs = [self._input(tensor) for tensor in keras.tree.flatten(structure)]
        self._names |= {valid_name(layer.name) for layer in model._flatten_layers(include_self=False)}
        outputs = self._play(graph, inputs, following)
        return keras.tree.pack_sequence_as(structure, inputs), outputs

    def _input(self, tensor: Any) -> Any:
        layer = tensor._keras_history.operation
        if tensor.dtype == "string":
            self._note(layer, "takes strings, which no integer model does; look them up before, in the examples")
        if tensor.sparse or getattr(layer, "optional", False):
            self._note(layer, "is a sparse or optional input; make it a plain one")
        return tf_keras.Input(batch_shape=tensor.shape, dtype=tf_keras_dtype(tensor.dtype), name=valid_name(layer.name))

    def _play(self, graph: Any, inputs: list[Any], following: frozenset[int] = frozenset(), prefix: str = "") -> Any:
        """Makes the calls of a Keras 3 graph on new inputs; the nodes `following` are to hear when it is training."""
        values = dict(zip(map(id, graph.inputs), inputs, strict=True))
        for node in nodes_of(graph):
            args, kwargs = node.arguments.convert(lambda value: values.get(id(value), value))
            for key in implied_arguments(node) | ({"training"} if id(node) in following else set()):
                del kwargs[key]
            try:
                outputs = keras.tree.flatten(self._call(node, args, kwargs, prefix))
            except RefusalError as error:
                self._note(node.operation, str(error), prefix)
                outputs = placeholders(node)
            except Exception as error:  # whatever a library raises for arguments that it does not take
                self._note(node.operation, f"got {type(error).__name__}, {reason(error)}; {REMEDY}", prefix)
                outputs = placeholders(node)
            values.update(zip(map(id, node.outputs), outputs, strict=True))
        return keras.tree.map_structure(lambda tensor: values[id(tensor)], graph._outputs_struct)

    def _call(self, node: Any, args: Any, kwargs: Any, prefix: str) -> Any:
        operation = node.operation
        if any(isinstance(value, keras.Variable) for value in keras.tree.flatten((args, kwargs))):
            raise RefusalError("takes a weight directly; put the weight into a Dense, EinsumDense or Embedding layer")
        if is_graph(operation):
            nested = self.model(operation)
            return nested(*args, **kwargs) if nested else placeholders(node)
        if type(operation) is keras.layers.Lambda:
            function = functools.partial(operation.function, **operation.arguments)
            return self._function(function, node.arguments.args, args, f"{prefix}{operation.name}", prefix)
        if not is_of_keras(operation):
            old_kwargs = {key: value for key, value in node.arguments.kwargs.items() if key in kwargs}
            graph, following = traced_call(operation, node.arguments.args, old_kwargs)
            return self._play(graph, symbols_in((args, kwargs)), following, f"{prefix}{operation.name}/")
        if not isinstance(operation, keras.layers.Layer):
            return self._renamed(operated(node, args, kwargs), args, f"{prefix}{operation.name}")
        if not activates_last(operation):
            return self._layer(node, operation, prefix)(*args, **kwargs)
        only = isinstance(operation, keras.layers.Activation)
        values = args[0] if only else self._layer(node, operation, prefix)(*args, **kwargs)
        if isinstance(operation.activation, keras.layers.Layer):
            return self._layer(node, operation.activation, prefix)(values)
        name = operation.name if only else f"{operation.name}_{activation_name(operation.activation) or 'activation'}"
        return self._function(operation.activation, (node.outputs[0],), (values,), f"{prefix}{name}", prefix)

    def _layer(self, node: Any, layer: Any, prefix: str) -> Any:
        """The layer of tf_keras for one that a node calls, the same for each of its nodes."""
        require_floats(layer, node.input_tensors[0].dtype)
        if id(layer) not in self._made:
            name = f"{prefix}{layer.name}"
            original, inside = layer, getattr(layer, "layer", None)
            if isinstance(layer, keras.layers.SpectralNormalization):
                # That of tf_keras cannot be built beside Keras 3. Only training divides the kernel, which is kept so.
                _LOGGER.warning("%s: it is rebuilt without its SpectralNormalization, whose kernel stays divided", name)
                original, made = inside, converted(inside, name, inner=True)
            elif isinstance(layer, keras.layers.TimeDistributed) and not is_convertible(inside):
                original, made = self._distributed(node, layer, name)
            else:
                made = converted(layer, name)
            self._made[id(layer)] = (original, made)
        return self._made[id(layer)][1]

    def _distributed(self, node: Any, layer: Any, name: str) -> tuple[Any, Any]:
        """A model for what TimeDistributed calls, and the TimeDistributed of tf_keras that calls it rebuilt."""
        step = node.input_tensors[0]
        inputs = keras.Input(step.shape[2:], dtype=step.dtype)
        model = (
            layer.layer if is_graph(layer.layer) else keras.Model(inputs, layer.layer(inputs), name=layer.layer.name)
        )
        built = self.model(model)
        if built is None:
            raise RefusalError(f"calls {model.name!r}, which cannot be rebuilt")
        return model, tf_keras.layers.TimeDistributed(built, name=valid_name(name), trainable=layer.trainable)

    def _function(self, function: Any, old_args: Any, args: Any, name: str, prefix: str) -> Any:
        """The values of a function: by the operations of Keras that it is made of, or of TensorFlow."""
        # Activation functions take no symbols, the operations that they are made of do.
        traceable = getattr(keras.ops, activation_name(function) or "-", function)
        try:
            graph = traced(traceable, old_args, {})
        except Exception:  # a function of TensorFlow takes symbols of tf_keras
            return self._renamed(function(*args), args, name)
        return self._renamed(self._play(graph, symbols_in(args), prefix=prefix), args, name)

    def _renamed(self, outputs: Any, args: Any, name: str) -> Any:
        """The outputs of functions of TensorFlow, the last of which gets a name."""
        taken = {id(tensor) for tensor in symbols_in(args)}
        for tensor in symbols_in(outputs)[:1]:
            if id(tensor) not in taken and hasattr(tensor.node.layer, "symbol"):
                numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
                found = next(one for one in map(valid_name, numbered) if one not in self._names)
                self._names.add(found)
                tensor.node.layer._name = found
        return outputs

    def _note(self, part: Any, why: str, prefix: str = "") -> None:
        problem = f"{prefix + part.name!r} ({type(part).__name__}) {why}"
        if problem not in self.problems:
            self.problems.append(problem)
