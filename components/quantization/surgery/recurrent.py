"""Recurrent layers are unrolled where TFLite has no op for them: a loop cannot be quantized."""

from collections.abc import Mapping
from typing import Any

import tf_keras

from components.quantization.surgery.activations import activation_name
from components.quantization.surgery.graph import Call, Rewriter, is_masked

TITLE = "unroll recurrent layers"

layers = tf_keras.layers
_CONVOLUTIONAL = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)


def applies(call: Call) -> bool:
    """Whether the call is of a recurrent layer over a known number of steps, other than a forward LSTM of all steps."""
    layer = call.layer
    inner = layer.forward_layer if isinstance(layer, layers.Bidirectional) else layer
    if not isinstance(inner, layers.RNN) or obstacle(call):
        return False
    return not getattr(inner, "unroll", True) and (is_masked(call) or len(call.inputs) > 1 or not _fused(layer))


def obstacle(call: Call) -> str:
    """Returns why a recurrent layer can be no op and not be unrolled, with the remedy; empty if it can."""
    layer = call.layer
    inner = layer.forward_layer if isinstance(layer, layers.Bidirectional) else layer
    if isinstance(inner, _CONVOLUTIONAL):
        return "loops over its steps, which TFLite cannot do in integers; convolve, and use LSTM on what is pooled"
    if inner.stateful:
        return "keeps its state from batch to batch, which the model file cannot; build it with stateful=False"
    if call.inputs[0].shape[0 if getattr(inner, "time_major", False) else 1] is None:
        return (
            "its number of steps is unknown; give the model's input a fixed number of steps, with fix_input_shapes say,"
            " and pad or cut to it"
        )
    return ""


def _fused(layer: Any) -> bool:
    """Whether TFLite has one op for the layer, UNIDIRECTIONAL_SEQUENCE_LSTM, and Keras computes it as one."""
    return (
        type(layer) is layers.LSTM
        and not layer.go_backwards
        and not layer.return_state
        and layer.use_bias
        and not layer.recurrent_dropout
        and (activation_name(layer), getattr(layer.recurrent_activation, "__name__", "")) == ("tanh", "sigmoid")
    )


def rewrite(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rewriter: Rewriter) -> Any:
    """The same layer, its steps written out."""
    layer = call.layer
    return rewriter.copy(layer, _unrolled(type(layer).__name__, layer.get_config(), is_masked(call)))(*args, **kwargs)


def _unrolled(class_name: str, config: Mapping[str, Any], masked: bool) -> dict[str, Any]:
    """The configuration of the same layer, its loop unrolled, and that of the layers and cells inside it.

    An LSTM, and a GRU with `reset_after=False` or a mask, multiply for each gate, instead of splitting one product in
    several: the first step, whose state is zero, does not use all parts, and TensorFlow's converter leaves such a split
    in floats by chance. `conversion.unused_outputs` mends that, but not beside an LSTM that is one op.
    """
    changed = {key: _unrolled_inside(value, masked) for key, value in config.items()}
    if "unroll" in config:
        changed["unroll"] = True
    if class_name in ("LSTM", "LSTMCell") or config.get("reset_after") is False or (masked and "reset_after" in config):
        changed["implementation"] = 1
    return changed


def _unrolled_inside(value: Any, masked: bool) -> Any:
    if isinstance(value, list):
        return [_unrolled_inside(one, masked) for one in value]
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        return value | {"config": _unrolled(str(value["class_name"]), value["config"], masked)}
    return value
