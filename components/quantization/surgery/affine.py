"""A gain and an offset for each channel: what Rescaling, Normalization and the end of LayerNormalization become."""

from typing import Any

import tensorflow as tf
import tf_keras


@tf_keras.saving.register_keras_serializable("tfx_qat")
class ChannelAffine(tf_keras.layers.Layer):  # type: ignore[misc]  # tf_keras has no types
    """`gain * x + offset`, with one gain and one offset for each element of the last axis, float32."""

    def build(self, input_shape: Any) -> None:
        """Makes gain and offset, each of shape (channels,)."""
        channels = int(input_shape[-1])
        self.gain = self.add_weight("gain", shape=(channels,), initializer="ones")
        self.offset = self.add_weight("offset", shape=(channels,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies them, in training as at inference."""
        del training
        return inputs * self.gain + self.offset
