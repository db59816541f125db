"""What Keras 3 models, and layers that users have written, call: read from their graphs or traced."""

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

import keras
import tf_keras

from components.quantization.surgery.source_lines import blamed, mention

REMEDY = "replace it by layers and keras.ops that tf_keras and TensorFlow have too"
# Layers that return what they take at inference.
_ONLY_TRAIN = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.RandomBrightness,
    keras.layers.RandomContrast,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_SYMBOL = tf_keras.__internal__.KerasTensor


class RefusalError(ValueError):
    """Why a part cannot be rebuilt, and what to do instead."""


def is_of_keras(operation: Any) -> bool:
    """Returns whether it is an operation or public layer of Keras, and not one that somebody else has written."""
    kind = type(operation)
    if isinstance(operation, keras.layers.Layer):
        return getattr(keras.layers, kind.__name__, None) is kind
    return kind.__module__.split(".")[0] == "keras"


def is_graph(operation: Any) -> bool:
    """Returns whether it is a Sequential or functional model, whose calls are all known."""
    return isinstance(operation, keras.Model) and type(operation).call.__module__.split(".")[0] == "keras"


def graph_of(model: Any) -> tuple[Any, frozenset[int], Any]:
    """Returns a model's functional graph, the nodes in it that are to hear whether it is training, and its inputs.

    Raises:
      RefusalError: If the model is not built, or its call cannot be traced.
    """
    inputs = inputs_of(model)
    if is_graph(model):
        return _functional(model), frozenset(), inputs
    return *traced_call(model, (inputs,), {}), inputs


def inputs_of(model: Any) -> Any:
    """Returns symbols of Keras 3 for what a model takes, in their structure; new ones if it is subclassed.

    Raises:
      RefusalError: If the model is not built.
    """
    if is_graph(model):
        graph = _functional(model)
        if not hasattr(graph, "_inputs_struct"):
            raise RefusalError("is not built; give it a keras.Input")
        return graph._inputs_struct
    shapes = list((model._build_shapes_dict or {}).values())
    if len(shapes) != 1:
        _require_traceable(model)
        raise RefusalError(
            "is not built, or takes several arguments; call it once on a batch, all its tensors in one list"
        )
    if isinstance(shapes[0], dict):
        return {name: keras.Input(shape[1:], name=name) for name, shape in shapes[0].items()}
    return keras.tree.map_shape_structure(lambda shape: keras.Input(shape[1:]), shapes[0])


def _require_traceable(model: Any) -> None:
    """Checks that the call of a model that Keras has not built can be traced, on what one of its layers took.

    Keras 3 does not build a model whose call it cannot trace, so that nothing tells the shapes of its inputs.
    """
    parameters = inspect.signature(model.call).parameters.values()
    required = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    taken = [list((layer._build_shapes_dict or {}).values()) for layer in model._flatten_layers(include_self=False)]
    plain = [one[0] for one in taken if len(one) == 1 and isinstance(one[0], tuple) and len(required) == 1]
    for shape in dict.fromkeys(plain):
        if all(size is None or isinstance(size, int) for size in shape):
            try:
                traced_call(model, (keras.Input(shape[1:]),), {})
            except RefusalError as error:
                if "incompatible" not in str(error):  # as it is with what the model does not take
                    raise


def _functional(model: Any) -> Any:
    """The functional model that a Sequential or functional one is."""
    return model._functional if isinstance(model, keras.Sequential) else model


def nodes_of(graph: Any) -> Iterator[Any]:
    """Yields the calls of a Keras 3 graph, each after those that it depends on."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if node.operation and not node.is_input)


def implied_arguments(node: Any) -> set[str]:
    """Returns the arguments of a call that Keras 3 has filled in, and that tf_keras finds out by itself.

    Keras 3 overrules `training` of a call by that of the model; `training=False` of the user's is kept nevertheless, as
    Keras's guide to transfer learning has it.
    """
    kwargs = node.arguments.kwargs
    masks = [getattr(tensor, "_keras_mask", None) for tensor in node.input_tensors]
    implied = {key for key, value in kwargs.items() if value is not None and any(value is mask for mask in masks)}
    if isinstance(kwargs.get("training"), bool):
        parameter = inspect.signature(node.operation.call).parameters.get("training")
        if kwargs["training"] or parameter is None or parameter.default is False:
            implied.add("training")
    return implied


def traced(function: Any, args: Any, kwargs: Any) -> Any:
    """Returns the functional graph of what a function does with new symbols like those among its arguments."""
    symbols = {
        id(value): keras.Input(batch_shape=value.shape, dtype=value.dtype)
        for value in keras.tree.flatten((args, kwargs))
        if isinstance(value, keras.KerasTensor)
    }
    args, kwargs = keras.tree.map_structure(lambda value: symbols.get(id(value), value), (args, kwargs))
    unchanged = {id(symbol) for symbol in symbols.values()}
    outputs = keras.tree.map_structure(  # a model must not return its inputs as they are
        lambda value: keras.layers.Identity()(value) if id(value) in unchanged else value, function(*args, **kwargs)
    )
    return keras.Model(list(symbols.values()), outputs)


def traced_call(layer: Any, args: Any, kwargs: Any) -> tuple[Any, frozenset[int]]:
    """Returns the graph of a layer's own `call`, and the nodes in it that it tells whether it is training.

    Raises:
      RefusalError: If it changes something, cannot be traced, or computes something else in training.
    """
    tells = "training" in inspect.signature(layer.call).parameters and kwargs.get("training") is None
    fixed = {key: value for key, value in kwargs.items() if not (tells and key == "training")}
    effect = mention(layer.call, r"self\.add_(loss|metric)\(|\.assign(_add|_sub)?\(")
    if effect:
        raise RefusalError(f"changes or adds something in its call{effect}; do so in compile() or not at all")
    calls = [functools.partial(layer.call, training=flag) for flag in (False, True)] if tells else [layer.call]
    try:
        graphs = [traced(call, args, fixed) for call in calls]
    except Exception as error:
        where, why = blamed(error, layer.call)
        raise RefusalError(f"cannot be traced at {where}: {why}; build it of layers and keras.ops alone") from error
    nodes, training = list(nodes_of(graphs[0])), list(nodes_of(graphs[-1]))
    if [_callee(node) for node in nodes] == [_callee(node) for node in training]:
        following = {id(a) for a, b in zip(nodes, training, strict=True) if _told(a) is False and _told(b) is True}
        return graphs[0], frozenset(following)
    if [_callee(node) for node in nodes] != [_callee(node) for node in training if not _only_trains(node)]:
        where = mention(layer.call, r"\bif\b.*training")
        raise RefusalError(
            f"branches on `training`{where}, other than around layers such as Dropout; call the same layers in any case"
            " and tell them `training`"
        )
    return graphs[-1], frozenset(id(node) for node in training if _told(node) is True)


def _only_trains(node: Any) -> bool:
    """Whether a call does nothing at inference."""
    return isinstance(node.operation, _ONLY_TRAIN)


def _callee(node: Any) -> Any:
    return id(node.operation) if isinstance(node.operation, keras.layers.Layer) else type(node.operation)


def _told(node: Any) -> Any:
    return node.arguments.kwargs.get("training")


def symbols_in(structure: Any) -> list[Any]:
    """Returns the symbolic tensors of tf_keras in a structure, each once, as `traced` takes those of Keras 3."""
    found = {id(value): value for value in keras.tree.flatten(structure) if isinstance(value, _SYMBOL)}
    return list(found.values())


def placeholders(node: Any) -> list[Any]:
    """Returns what stands for the outputs of a node that cannot be rebuilt, so that all such nodes are found."""
    return [tf_keras.Input(batch_shape=tensor.shape, dtype=tf_keras_dtype(tensor.dtype)) for tensor in node.outputs]


def valid_name(name: str) -> str:
    """Returns the name as TensorFlow allows it for a scope."""
    valid = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)
    return valid if re.match(r"[A-Za-z0-9.]", valid) else f"layer{valid}"


def tf_keras_dtype(name: str) -> str:
    """Returns the dtype in which tf_keras computes what Keras 3 computes in another: all floats are float32."""
    return "float32" if "float" in name else name
