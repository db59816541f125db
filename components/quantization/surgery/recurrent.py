"""Recurrent layers are unrolled where TFLite has no op for them: a loop cannot be quantized."""

from typing import Any

import tf_keras

from components.quantization.surgery.graph import Call, Rewriter

TITLE = "unroll recurrent layers"

layers = tf_keras.layers


def applies(call: Call) -> bool:
    """Whether the call is of a recurrent layer other than a forward LSTM, over a known number of steps."""
    layer = call.layer
    inner = layer.forward_layer if isinstance(layer, layers.Bidirectional) else layer
    if not isinstance(inner, layers.RNN) or call.inputs[0].shape[1] is None:
        return False
    return not getattr(inner, "unroll", True) and not _fused(layer)


def _fused(layer: Any) -> bool:
    """Whether TFLite has one op for the layer: UNIDIRECTIONAL_SEQUENCE_LSTM."""
    return type(layer) is layers.LSTM and not layer.go_backwards and not layer.stateful


def rewrite(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rewriter: Rewriter) -> Any:
    """The same layer, its steps written out."""
    layer = call.layer
    if isinstance(layer, layers.Bidirectional):
        config = layer.get_config()
        inner = {key: config[key] for key in ("layer", "backward_layer") if key in config}
        for serialized in inner.values():
            serialized["config"] |= _unrolled(serialized["class_name"])
        return rewriter.copy(layer, inner)(*args, **kwargs)
    return rewriter.copy(layer, _unrolled(type(layer).__name__))(*args, **kwargs)


def _unrolled(class_name: str) -> dict[str, Any]:
    """What changes in the configuration. An LSTM multiplies for each gate, instead of splitting one product in four.

    The converter of TensorFlow 2.21 leaves the split in floats.
    """
    return {"unroll": True, **({"implementation": 1} if class_name == "LSTM" else {})}
