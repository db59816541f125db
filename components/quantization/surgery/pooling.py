"""An average over the whole input becomes a global one, whose op has a range of its own.

TFLite's AVERAGE_POOL_2D has one scale before and behind. Averages of many values are far smaller than the largest of
them, so that few of that scale's steps are left for them; MEAN has a scale for each.
"""

from typing import Any

import tf_keras

from components.quantization.surgery.graph import Call, Rewriter

TITLE = "average the whole input by its mean"

layers = tf_keras.layers
_GLOBAL = {
    layers.AveragePooling1D: layers.GlobalAveragePooling1D,
    layers.AveragePooling2D: layers.GlobalAveragePooling2D,
}


def applies(call: Call) -> bool:
    """Whether the call is of an average over all of its input but batch and channels."""
    layer = call.layer
    if type(layer) not in _GLOBAL or layer.data_format != "channels_last":
        return False
    before, after = (tuple(tensor.shape[1:-1]) for tensor in (call.inputs[0], call.outputs[0]))
    return tuple(layer.pool_size) == before and set(after) == {1}


def rewrite(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rewriter: Rewriter) -> Any:
    """Applies the global average."""
    del kwargs
    layer = call.layer
    average = rewriter.once(layer, lambda: _GLOBAL[type(layer)](keepdims=True, name=layer.name))
    return average(args[0])
