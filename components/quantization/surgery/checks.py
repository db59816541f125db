"""What is wrong with a model before anything is rewritten, and what of it the copies leave behind."""

import logging
from typing import Any

import tf_keras

from components.quantization.surgery import activations
from components.quantization.surgery.graph import Call, calls, is_nested, nested_inputs, symbol

_LOGGER = logging.getLogger(__name__)

layers = tf_keras.layers
# What computes with integers as if they were real numbers, and does not look something up by them.
_NUMERIC = (layers.Rescaling, layers.Normalization, layers.BatchNormalization, layers.Dense, layers.Resizing)
_NUMERIC_FUNCTIONS = ("cast", "truediv", "divide", "multiply", "mul", "add", "subtract", "sub")


def require_float32(model: tf_keras.Model) -> None:
    """Checks that all layers compute in float32.

    Raises:
      ValueError: If some compute in floats of another width; names them.
    """
    found: dict[str, str] = {}
    for layer in model._flatten_layers(include_self=False):
        if "float" in (layer.compute_dtype or "") and layer.compute_dtype != "float32":
            found.setdefault(layer.name, layer.compute_dtype)
    if found:
        listed = ", ".join(f"{name} ({dtype})" for name, dtype in found.items())
        raise ValueError(
            f"model {model.name!r}: got layers that do not compute in float32: {listed}; rebuild the model with the"
            " policy float32 and load its weights: fake quantization rounds to steps that other floats cannot represent"
        )


def require_known_activations(model: tf_keras.Model) -> None:
    """Checks that the activation functions of all layers can be copied.

    Raises:
      ValueError: If some cannot; names the layers.
    """
    found = {
        layer.name: _described(getattr(layer, name))
        for layer in model._flatten_layers(include_self=False)
        for name in ("activation", "recurrent_activation")
        if type(layer).__module__.startswith("tf_keras.") and not _is_known(layer, getattr(layer, name, None))
    }
    if found:
        listed = ", ".join(f"{name!r} with {function}" for name, function in found.items())
        raise ValueError(
            f"model {model.name!r}: got activation functions that Keras does not know by a name: {listed}; use one of"
            " Keras's by its name, or call the function on the output of a layer without activation"
        )


def require_float_pixels(model: tf_keras.Model) -> None:
    """Checks that no input of integers is computed with, other than to look something up.

    Raises:
      ValueError: If one is; names it and the layer.
    """
    _require_float_pixels(model, {id(tensor): _name(tensor) for tensor in model.inputs if tensor.dtype.is_integer})


def warn_of_losses(model: tf_keras.Model) -> None:
    """Logs which losses of the model's own the quantized model will not have."""
    flat = list(model._flatten_layers(include_self=False))
    regularized = [layer.name for layer in flat if _has_lost_regularizer(layer)]
    own = any(type(layer).__name__ == "AddLoss" for layer in flat)
    if regularized or own:
        parts = [f"activity_regularizer of {', '.join(regularized)}"] if regularized else []
        parts += ["losses of model.add_loss"] if own else []
        _LOGGER.warning(
            "model %r: quantization-aware training leaves out %s; train with them before, or put them into the loss of"
            " compile()",
            model.name,
            " and ".join(parts),
        )


def _require_float_pixels(model: tf_keras.Model, integers: dict[int, str]) -> None:
    """Follows the tensors of integers, by their ids, with the names of the inputs that they come from."""
    for call in calls(model):
        name = next((integers[id(tensor)] for tensor in call.inputs if id(tensor) in integers), None)
        if name is None:
            continue
        if is_nested(call):
            fed = nested_inputs(call.layer, call.args, call.kwargs)
            inner = zip(fed, call.layer.inputs, strict=True)
            _require_float_pixels(call.layer, {id(new): integers[id(old)] for old, new in inner if id(old) in integers})
        elif call.outputs[0].dtype.is_integer:
            integers |= {id(tensor): name for tensor in call.outputs}
        elif _is_numeric(call):
            raise ValueError(
                f"input {name!r}: got integers, which layer {call.layer.name!r} computes with, expected floats; give it"
                " float32 pixels, the integer model takes int8 or uint8 all the same"
            )


def _is_numeric(call: Call) -> bool:
    numeric = isinstance(call.layer, _NUMERIC) or symbol(call.layer) in _NUMERIC_FUNCTIONS
    return numeric and bool(call.outputs[0].dtype.is_floating)


def _name(tensor: Any) -> str:
    return str(tensor.node.layer.name)


def _is_known(layer: Any, function: Any) -> bool:
    """Whether a layer with the function can be made again from its configuration, or is split from it by its name."""
    splits = not hasattr(layer, "state_size") and getattr(function, "__name__", "") in activations.KNOWN
    if function is None or isinstance(function, layers.Layer) or splits:
        return True
    try:
        tf_keras.activations.deserialize(tf_keras.activations.serialize(function))
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _described(function: Any) -> str:
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _has_lost_regularizer(layer: Any) -> bool:
    has = getattr(layer, "activity_regularizer", None) is not None
    return has and not isinstance(layer, layers.ActivityRegularization)  # which is copied as it is
