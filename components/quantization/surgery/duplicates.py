"""Equal layers of the same tensor become one.

TensorFlow's converter merges equal ops, whatever ranges they were given; where those differ, floats or a refusal is
left.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.surgery.graph import Call, Copies, calls, rebuilt

TITLE = "merge equal layers of one tensor"

layers = tf_keras.layers
_RANDOM = ("dropout", "noise", "random")


def duplicates(model: tf_keras.Model) -> list[Call]:
    """Returns the calls of a functional model whose values another call has, which stays in their place."""
    return [call for call, kept in _pairs(model) if kept is not call]


def merged(model: tf_keras.Model) -> tf_keras.Model:
    """Returns the model without its duplicates."""
    kept = {id(call.outputs[0]): kept for call, kept in _pairs(model)}
    copies = Copies()
    made: dict[int, Any] = {}

    def handler(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stays = kept[id(call.outputs[0])]
        key = id(stays.outputs[0])
        if key not in made:  # by whichever comes first: their arguments are the same
            made[key] = copies.of(stays.layer)(*args, **kwargs)
        return made[key]

    changed = rebuilt(model, handler)
    copies.copy_weights()
    return changed


def _pairs(model: tf_keras.Model) -> Iterator[tuple[Call, Call]]:
    """Yields each call with the one that takes its place, which may be itself.

    An output of the model takes the place of its duplicates; two outputs both stay.
    """
    outputs = {id(tensor) for tensor in model.outputs}
    names: dict[int, int] = {}  # of tensors with equal values, the id of the first
    equal: dict[str, list[Call]] = {}
    for call in calls(model):
        alike = equal.setdefault(_key(call, names), [])
        alike.append(call)
        names |= {id(own): id(first) for own, first in zip(call.outputs, alike[0].outputs, strict=True)}
    for alike in equal.values():
        shown = [any(id(tensor) in outputs for tensor in call.outputs) for call in alike]
        stays = alike[shown.index(True)] if any(shown) else alike[0]
        yield from ((call, call if own else stays) for call, own in zip(alike, shown, strict=True))


def _key(call: Call, names: Mapping[int, int]) -> str:
    """What equal calls have in common; nothing has that of a call that must not be merged."""
    layer = call.layer
    kind = f"{type(layer).__name__} {getattr(layer, 'symbol', '')}".lower()
    if layer.stateful or any(word in kind for word in _RANDOM):
        return f"alone {id(call.outputs[0])}"
    inputs = {id(tensor) for tensor in call.inputs}

    def described(leaf: Any) -> str:
        if id(leaf) in inputs:
            return f"tensor {names.get(id(leaf), id(leaf))}"
        return _constant(leaf)

    kwargs = sorted((name, value) for name, value in call.kwargs.items() if value is not None)
    return f"{_layer_key(layer)} {tf.nest.map_structure(described, (call.args, kwargs))}"


def _layer_key(layer: Any) -> str:
    """What layers that compute the same have in common."""
    own = not type(layer).__module__.startswith("tf_keras.") or isinstance(layer, layers.Lambda)
    if layer.weights or own:
        return f"layer {id(layer)}"
    config = {name: value for name, value in layer.get_config().items() if name != "name"}
    return json.dumps([type(layer).__name__, config], sort_keys=True, default=_constant)


def _constant(value: Any) -> str:
    if isinstance(value, np.ndarray | tf.Tensor):
        array = np.asarray(value)
        return f"{array.dtype} {array.shape} {array.tobytes().hex()}"
    return f"{type(value).__name__} {value!r}"
