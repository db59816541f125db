"""LayerNormalization becomes arithmetic that integers can do."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.surgery.affine import ChannelAffine
from components.quantization.surgery.graph import Call, Rewriter

TITLE = "spell out LayerNormalization"

layers = tf_keras.layers


def applies(call: Call) -> bool:
    """Whether the call is of a LayerNormalization over the last axis."""
    layer = call.layer
    if not isinstance(layer, layers.LayerNormalization):
        return False
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return axes in ([-1], [len(call.inputs[0].shape) - 1])


def rewrite(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rewriter: Rewriter) -> Any:
    """Centres, divides by the standard deviation, then applies gain and offset."""
    del kwargs
    layer = call.layer
    x = args[0]
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(centred * centred, -1, keepdims=True)
    normalized = centred * ReciprocalRoot(name=rewriter.unique(f"{layer.name}_rsqrt"))(variance + layer.epsilon)
    return rewriter.once(layer, lambda: _scale(layer, int(x.shape[-1]), rewriter))(normalized)


def _scale(layer: Any, channels: int, rewriter: Rewriter) -> ChannelAffine:
    affine = ChannelAffine(trainable=layer.trainable, name=layer.name)
    weights = [np.asarray(value) for value in layer.get_weights()]
    gain = weights.pop(0) if layer.scale else np.ones(channels, np.float32)
    offset = weights.pop(0) if layer.center else np.zeros(channels, np.float32)
    rewriter.give_weights(affine, [gain, offset])
    return affine


@tf_keras.saving.register_keras_serializable("tfx_qat")
class ReciprocalRoot(tf_keras.layers.Layer):  # type: ignore[misc]  # tf_keras has no types
    """`1 / sqrt(x)` of numbers that quantization may have rounded to 0.

    There the integer kernel returns the largest number of its range, and so does fake quantization of infinity. In
    training, infinity would become a part of that range: 0 counts as the smallest positive number of the batch.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns a tensor of the same shape."""
        if training:
            positive = tf.where(inputs > 0.0, inputs, inputs.dtype.max)
            inputs = tf.maximum(inputs, tf.stop_gradient(tf.reduce_min(positive)))
        return tf.math.rsqrt(inputs)
