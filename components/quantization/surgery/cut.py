"""A model cut in two: a backbone that becomes integers, and a head that stays as it is."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.surgery import inline
from components.quantization.surgery.graph import Call, Copies, calls, new_input, play
from components.quantization.surgery.prepare import functional
from components.quantization.surgery.proof import require_same_function

TITLE = "cut"
_SHOWN = 3  # layers at each end of a path in an error


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Two models that compute, one behind the other, what one did; of copies of its layers, not compiled.

    Attributes:
      backbone: From the model's inputs to the outputs of the layers it was cut at; its outputs have their names.
      head: From those, in that order, to the model's outputs; its inputs have the names of the layers.
    """

    backbone: tf_keras.Model
    head: tf_keras.Model


def cut(model: Any, at: Sequence[str]) -> Cut:
    """Cuts a model behind layers, so that what integers cannot compute, such as NMS, is left to the client.

    Convert, or quantize and train, the backbone; feed the head its dequantized outputs.

    Args:
      model: A built Keras model, as `prepare` takes it.
      at: Names of layers that together separate inputs from outputs, each called once and with one output. A layer in
        a nested model is called `outer/inner`.

    Raises:
      ValueError: If names are unknown, given twice, or of layers that are not called once or have several outputs; if
        a path leads around them; or if the outputs need none of one: lists all. Or if the model is none, or computes
        something else when cut, as with a mask that would have to pass the cut.

    >>> layers = tf_keras.layers
    >>> model = tf_keras.Sequential([layers.Dense(2, name="dense", input_shape=(3,)), layers.Lambda(tf.math.atan)])
    >>> parts = cut(model, ["dense"])
    >>> parts.backbone.output_shape, parts.head.input_names
    ((None, 2), ['dense'])
    """
    model = functional(model)
    if set(at) - {call.layer.name for call in calls(model)} and any(inline.applies(call) for call in calls(model)):
        model = inline.inlined(model)
    ends = _ends(model, at)
    steps = _steps(model, ends, model.outputs)
    _require_separating(model, at, ends, steps)
    backbone = _backbone(model, at, ends)
    head = _head(model, at, ends, steps)

    def joined(inputs: Any, training: bool) -> Any:
        """As a client has it: what passes the cut are numbers alone, without masks."""
        outputs = [np.asarray(value) for value in tf.nest.flatten(backbone(inputs, training=training))]
        return head(outputs, training=training)

    require_same_function(joined, model, f"{TITLE} at {', '.join(at)}")
    return Cut(backbone=backbone, head=head)


def _ends(model: tf_keras.Model, at: Sequence[str]) -> list[Any]:
    """The symbolic tensors that the layers return."""
    found: dict[str, list[Call]] = {}
    for call in calls(model):
        found.setdefault(call.layer.name, []).append(call)
    problems = [] if at else ["got no layer, expected at least one"]
    for name in dict.fromkeys(at):
        uses = found.get(name, [])
        if not uses:
            close = ", ".join(difflib.get_close_matches(name, found)) or ", ".join(list(found)[-_SHOWN:])
            problems.append(f"got {name!r}, which is no layer, expected one such as {close}")
        elif len(uses) > 1:
            problems.append(f"got {name!r}, which is called {len(uses)} times, expected a layer called once")
        elif len(uses[0].outputs) > 1:
            problems.append(f"got {name!r}, which has {len(uses[0].outputs)} outputs, expected a layer with one")
        if list(at).count(name) > 1:
            problems.append(f"got {name!r} {list(at).count(name)} times, expected it once")
    if problems:
        raise ValueError(f"cut of model {model.name!r}: {'; '.join(problems)}; name layers as the plan lists them")
    return [found[name][0].outputs[0] for name in at]


def _steps(model: tf_keras.Model, sources: Sequence[Any], results: Sequence[Any]) -> list[Call]:
    """The calls that the results depend on and the sources do not."""
    given, wanted = {id(tensor) for tensor in sources}, {id(tensor) for tensor in results}
    steps = []
    for call in reversed(list(calls(model))):
        if any(id(tensor) in wanted - given for tensor in call.outputs):
            steps.append(call)
            wanted |= {id(tensor) for tensor in call.inputs}
    return steps[::-1]


def _require_separating(model: tf_keras.Model, at: Sequence[str], ends: Sequence[Any], steps: Sequence[Call]) -> None:
    problems = []
    path = _path_around(model, ends, steps)
    if path:
        shown = path if len(path) <= 2 * _SHOWN else (*path[:_SHOWN], "...", *path[-_SHOWN:])
        problems.append(f"the path {' -> '.join(shown)} leads around {', '.join(at)}; cut it too, at one of its layers")
    needed = {id(tensor) for step in steps for tensor in step.inputs} | {id(tensor) for tensor in model.outputs}
    idle = [name for name, end in zip(at, ends, strict=True) if id(end) not in needed]
    if idle:
        problems.append(f"nothing behind the cut takes {', '.join(idle)}; leave it out")
    if problems:
        raise ValueError(f"cut of model {model.name!r}: {'; '.join(problems)}")


def _path_around(model: tf_keras.Model, ends: Sequence[Any], steps: Sequence[Call]) -> tuple[str, ...]:
    """The names along the shortest path from an input to an output that meets no end; empty if there is none."""
    cut_off = {id(tensor) for tensor in ends}
    paths: dict[int, tuple[str, ...]] = {id(tensor): (str(tensor.node.layer.name),) for tensor in model.inputs}
    for step in steps:
        reached = [paths[id(tensor)] for tensor in step.inputs if id(tensor) in paths]
        if reached:
            path = (*min(reached, key=len), str(step.layer.name))
            paths |= {id(tensor): path for tensor in step.outputs if id(tensor) not in cut_off}
    return min((paths[id(tensor)] for tensor in model.outputs if id(tensor) in paths), key=len, default=())


def _backbone(model: tf_keras.Model, at: Sequence[str], ends: Sequence[Any]) -> tf_keras.Model:
    inputs = [new_input(tensor) for tensor in model.inputs]
    values = dict(zip(map(id, model.inputs), inputs, strict=True))
    _play_copies(_steps(model, model.inputs, ends), values)
    structure = tf.nest.pack_sequence_as(model._nested_inputs, inputs)
    backbone = tf_keras.Model(structure, [values[id(end)] for end in ends], name=model.name)
    backbone.output_names = list(at)
    return backbone


def _head(model: tf_keras.Model, at: Sequence[str], ends: Sequence[Any], steps: Sequence[Call]) -> tf_keras.Model:
    inputs = [
        tf_keras.Input(batch_shape=end.shape, dtype=end.dtype, name=name) for name, end in zip(at, ends, strict=True)
    ]
    values = dict(zip(map(id, ends), inputs, strict=True))
    _play_copies(steps, values)
    outputs = tf.nest.map_structure(lambda leaf: values[id(leaf)], model._nested_outputs)
    head = tf_keras.Model(inputs, outputs, name=f"{model.name}_head")
    head.output_names = list(model.output_names)
    return head


def _play_copies(steps: Sequence[Call], values: dict[int, Any]) -> None:
    copies = Copies()
    play(steps, values, lambda call, args, kwargs: copies.of(call.layer)(*args, **kwargs))
    copies.copy_weights()
