"""Proof, by running both, that a change of a model's graph leaves the function that it computes as it was."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.surgery.affine import ChannelAffine
from components.quantization.surgery.graph import calls, is_nested, nested_inputs
from components.quantization.surgery.source_lines import reason

TOLERANCE = 1e-5  # of the range of the outputs
UNKNOWN_DIMENSION = 32  # what random inputs have where a model takes any size
_EXAMPLES = 2


def random_inputs(model: tf_keras.Model, seed: int = 1) -> list[npt.NDArray[Any]]:
    """Returns arrays for the inputs of a model: normal numbers, and small indices where it takes integers.

    Where a ChannelAffine comes first, its results are normal numbers: those of pixels that it brings to -1 to 1, say,
    would otherwise all be the same but for their last digits.
    """
    generator = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        batch = tensor.shape[0] or _EXAMPLES
        shape = [batch, *(size or UNKNOWN_DIMENSION for size in tensor.shape[1:])]
        integers = tensor.dtype.is_integer or _is_index(model, tensor)
        values = generator.integers(0, 2, shape) if integers else generator.normal(size=shape)
        for call in calls(model):
            if isinstance(call.layer, ChannelAffine) and call.inputs[0] is tensor:
                gain, offset = (np.asarray(value) for value in call.layer.get_weights())
                values = (values - offset) / np.where(gain == 0.0, 1.0, gain)
        arrays.append(values.astype(tensor.dtype.as_numpy_dtype))
    return arrays


def difference(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """Returns the largest absolute difference, as a fraction of the range of the first; infinite if not comparable.

    Where both are the same infinity, or neither is a number, they do not differ; but somewhere there must be numbers.

    >>> difference([0.0, 4.0], [0.0, 3.0])
    0.25
    """
    old, new = np.asarray(before, np.float64), np.asarray(after, np.float64)
    finite = np.isfinite(old)
    infinities = np.where(finite, 0.0, old), np.where(np.isfinite(new), 0.0, new)
    if not np.array_equal(*infinities, equal_nan=True):  # false for other shapes too
        return float("inf")
    old, new = old[finite], new[finite]
    if not old.size:
        return float("inf") if finite.size else 0.0  # nothing was compared
    largest = float(np.max(np.abs(old - new)))
    spread = float(np.ptp(old)) or float(np.max(np.abs(old)))
    return largest / spread if spread else (0.0 if largest < TOLERANCE else float("inf"))


def require_same_function(
    before: Callable[..., Any], after: tf_keras.Model, step: str, tolerance: float = TOLERANCE
) -> None:
    """Checks that both compute the same from random inputs.

    Args:
      before: The model as it was; any callable that takes the inputs of the other, and `training`.
      after: The changed functional model.
      step: What changed it, for the error.
      tolerance: Largest allowed difference, as a fraction of the range of each output.

    Raises:
      ValueError: If an output differs, with the first layer that does where models share layer names; if an output
        is no number anywhere; or if the inputs have unknown dimensions and it does not compute with those chosen.
    """
    functional = isinstance(before, tf_keras.Model) and before._is_graph_network
    inputs = random_inputs(before if functional else after)
    arguments = inputs if len(inputs) > 1 else inputs[0]
    try:
        olds = [np.asarray(value) for value in tf.nest.flatten(before(arguments, training=False))]
        news = [np.asarray(value) for value in tf.nest.flatten(after(arguments, training=False))]
    except Exception as error:  # whatever an op raises that 32 is too small for, or does not fit others
        _raise_of_unknown_dimensions(before if functional else after, step, error)
        raise
    if any(old.size and not np.any(np.isfinite(old)) for old in olds):
        raise ValueError(
            f"model {after.name!r}: step {step!r} cannot be proved, got an output for random inputs that is not a"
            " number anywhere, expected numbers; look for NaN in its weights, and for divisions, roots and logarithms"
        )
    worst = max(difference(old, new) for old, new in zip(olds, news, strict=True))
    if worst <= tolerance:
        return
    where = _first_difference(before, after, arguments, tolerance) if isinstance(before, tf_keras.Model) else ""
    raise ValueError(
        f"model {after.name!r}: step {step!r} would change what it computes by {worst:.2g} of the range of an output"
        f"{where}, expected at most {tolerance:g}; rewrite that part with plain layers"
    )


def _raise_of_unknown_dimensions(model: tf_keras.Model, step: str, error: Exception) -> None:
    """Raises ValueError if a model has inputs of unknown dimensions, which may be why it does not compute."""
    unknown = {
        tensor.node.layer.name: tuple(tensor.shape[1:]) for tensor in model.inputs if None in tuple(tensor.shape[1:])
    }
    if unknown:
        listed = ", ".join(f"{name} {shape}" for name, shape in unknown.items())
        raise ValueError(
            f"model {model.name!r}: step {step!r} cannot be proved, it cannot compute from inputs of"
            f" unknown dimensions with {UNKNOWN_DIMENSION} for each, {listed}: {reason(error)}; give them numbers with"
            " fix_input_shapes"
        ) from error


def _first_difference(before: tf_keras.Model, after: tf_keras.Model, arguments: Any, tolerance: float) -> str:
    shared = [layer.name for layer in after.layers if any(layer.name == old.name for old in before.layers)]
    for name in shared:
        try:
            values = [
                tf.nest.flatten(tf_keras.Model(m.inputs, m.get_layer(name).output)(arguments, training=False))
                for m in (before, after)
            ]
        except (AttributeError, ValueError):  # a shared layer has several outputs
            continue
        if any(difference(old, new) > tolerance for old, new in zip(*values, strict=True)):
            return f", first at layer {name!r}"
    return ""


def _is_index(model: tf_keras.Model, tensor: Any) -> bool:
    """Whether a float input is used as an index."""
    for call in calls(model):
        if isinstance(call.layer, tf_keras.layers.Embedding) and any(tensor is fed for fed in call.inputs):
            return True
        if is_nested(call):
            fed = nested_inputs(call.layer, call.args, call.kwargs)
            inner = zip(fed, call.layer.inputs, strict=True)
            if any(tensor is old and _is_index(call.layer, new) for old, new in inner):
                return True
    return False
