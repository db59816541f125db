"""What a client does behind the integers of a model that was cut: the head, in words and as a SavedModel."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.contract import HEAD_DIRECTORY
from components.quantization.contract.steps import ClientStep, Postprocessing
from components.quantization.surgery.graph import Call, calls, symbol

_MOST_VALUES = 8
# What a layer's configuration says about training, its name, or how Keras stores a lambda.
_SILENT = (
    *("name", "trainable", "dtype", "batch_input_shape"),
    *("function", "function_type", "module", "output_shape_type"),
)


def postprocessing(head: tf_keras.Model) -> Postprocessing:
    """Returns what a client does with the dequantized outputs of a backbone.

    Args:
      head: Of `cut`.
    """
    names = dict(zip(map(id, head.inputs), head.input_names, strict=True))
    steps = []
    for call in calls(head):
        for place, tensor in enumerate(call.outputs):
            names[id(tensor)] = f"{call.layer.name}:{place}" if len(call.outputs) > 1 else str(call.layer.name)
        steps.append(ClientStep(op=_op(call.layer), output=str(call.layer.name), description=_description(call, names)))
    results = zip(head.output_names, head.outputs, strict=True)
    return Postprocessing(
        reference=HEAD_DIRECTORY,
        sources=tuple(head.input_names),
        steps=tuple(steps),
        results={name: names[id(tensor)] for name, tensor in results},
    )


def write_head(head: tf_keras.Model, directory: Path) -> None:
    """Writes the reference of the postprocessing: a SavedModel, which needs no code but TensorFlow's.

    Args:
      head: Of `cut`.
      directory: Where the contract is; it must exist.
    """
    head.save(directory / HEAD_DIRECTORY, save_format="tf", include_optimizer=False)


def _op(layer: Any) -> str:
    return f"tf.{layer.symbol}" if symbol(layer) else type(layer).__name__


def _description(call: Call, names: dict[int, str]) -> str:
    arguments = [_argument(value, names) for value in call.args]
    arguments += [f"{key}={_argument(value, names)}" for key, value in call.kwargs.items() if value is not None]
    config = {} if symbol(call.layer) else call.layer.get_config()
    settings = [f"{key}={value!r}" for key, value in config.items() if key not in _SILENT and _says(value)]
    told = f" with {', '.join(settings)}" if settings else ""
    weights = f"; {len(call.layer.weights)} weights in the reference" if call.layer.weights else ""
    results = ", ".join(_type(tensor) for tensor in call.outputs)
    return f"{_op(call.layer)}({', '.join(arguments)}){told} -> {results}{weights}"


def _argument(value: Any, names: dict[int, str]) -> str:
    """An argument of a call: tensors by what earlier steps call them, constants by their values if those are few."""
    if id(value) in names:
        return names[id(value)]
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_argument(item, names)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_argument(item, names) for item in value)}]"
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return ":".join("" if end is None else _argument(end, names) for end in ends)
    if isinstance(value, np.ndarray | tf.Tensor):
        values = np.asarray(value)
        return str(values.tolist()) if values.size <= _MOST_VALUES else f"a constant of {list(values.shape)}"
    return repr(value)


def _says(value: Any) -> bool:
    """Whether a value of a layer's configuration is one that a client can read."""
    if isinstance(value, list | tuple):
        return all(isinstance(item, bool | int | float) for item in value)
    return isinstance(value, bool | int | float | str)


def _type(tensor: Any) -> str:
    return f"{tensor.dtype.name} [{', '.join('?' if size is None else str(size) for size in tensor.shape)}]"
