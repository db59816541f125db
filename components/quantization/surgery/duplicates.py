"""Equal activations of the same tensor become one.

TensorFlow's converter merges them, whatever ranges they were given; where those differ, floats or a refusal is left.
"""

import json
from typing import Any

import tf_keras

from components.quantization.surgery.graph import Call, Copies, calls, rebuilt

TITLE = "merge equal activations of one tensor"

layers = tf_keras.layers
_MERGED = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.Softmax)


def duplicates(model: tf_keras.Model) -> list[Call]:
    """Returns the calls of a functional model that compute what an earlier one computes."""
    outputs = {id(tensor) for tensor in model.outputs}
    seen: set[str] = set()
    found = []
    for call in calls(model):
        if not isinstance(call.layer, _MERGED) or id(call.outputs[0]) in outputs:
            continue
        key = _key(call)
        if key in seen:
            found.append(call)
        seen.add(key)
    return found


def merged(model: tf_keras.Model) -> tf_keras.Model:
    """Returns the model without its duplicates."""
    gone = {id(call.outputs[0]) for call in duplicates(model)}
    outputs = {id(tensor) for tensor in model.outputs}
    copies = Copies()
    made: dict[str, Any] = {}

    def handler(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if id(call.outputs[0]) in gone:
            return made[_key(call)]
        result = copies.of(call.layer)(*args, **kwargs)
        if isinstance(call.layer, _MERGED) and id(call.outputs[0]) not in outputs:
            made[_key(call)] = result
        return result

    changed = rebuilt(model, handler)
    copies.copy_weights()
    return changed


def _key(call: Call) -> str:
    """What equal calls have in common."""
    config = {name: value for name, value in call.layer.get_config().items() if name != "name"}
    inputs = [id(tensor) for tensor in call.inputs]
    return json.dumps([type(call.layer).__name__, config, inputs], sort_keys=True, default=str)
