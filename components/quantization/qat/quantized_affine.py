"""A gain and an offset for each channel in a quantization-aware model."""

from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.qat import weight_quantization
from components.quantization.surgery.affine import ChannelAffine


def inference_affine(layer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what a BatchNormalization or ChannelAffine does at inference: gain and offset, each (channels,)."""
    if isinstance(layer, ChannelAffine):
        return tf.convert_to_tensor(layer.gain), tf.convert_to_tensor(layer.offset)
    gain = tf.math.rsqrt(layer.moving_variance + layer.epsilon)
    if layer.gamma is not None:
        gain *= layer.gamma
    offset = -layer.moving_mean * gain
    return gain, offset if layer.beta is None else offset + layer.beta


@tf_keras.saving.register_keras_serializable("tfx_qat")
class QuantizedAffine(tf_keras.layers.Layer):  # type: ignore[misc]  # tf_keras has no types
    """A BatchNormalization or ChannelAffine that follows no weighted layer: at inference a 1x1 depthwise convolution.

    Each channel has one weight and one scale, so that its weights lose nothing.

    Attributes:
      normalization: The layer.
    """

    def __init__(self, normalization: Any, bits: int = 8, per_axis: bool = True, **kwargs: Any) -> None:
        """Wraps a layer; arguments as those of QuantizedWeights."""
        super().__init__(**kwargs)
        self.supports_masking = normalization.supports_masking
        self.normalization = normalization
        self.bits = bits
        self.per_axis = per_axis
        self.quantizing = True

    def build(self, input_shape: Any) -> None:
        """Builds the layer."""
        if not self.normalization.built:
            self.normalization.build(input_shape)
            self.normalization.built = True
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, input_step: tf.Tensor | None = None, training: bool | None = None) -> tf.Tensor:
        """Computes as the integer model, in real values; arguments as those of QuantizedWeights."""
        if training or not self.quantizing:
            return self._trained(inputs, training)
        return self.folded(inputs, input_step)

    def _trained(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        values = self.normalization(inputs, training=training)
        if self.per_axis or not self.quantizing:
            return values
        # With one scale for all channels, what rounding makes of each channel's weight.
        gain, offset = inference_affine(self.normalization)
        rounded = weight_quantization.fake_quantized(gain, (), self.bits)
        alive = tf.abs(gain) > 1e-12
        ratio = tf.stop_gradient(tf.where(alive, rounded / tf.where(alive, gain, 1.0), 1.0))
        beta = getattr(self.normalization, "beta", None)
        constant = offset if isinstance(self.normalization, ChannelAffine) else beta
        return values * ratio if constant is None else constant + (values - constant) * ratio

    def folded(self, inputs: tf.Tensor, input_step: tf.Tensor | None = None) -> tf.Tensor:
        """Computes as at inference, as a convolution."""
        gain, offset = inference_affine(self.normalization)
        kernel = tf.reshape(gain, [1, 1, -1, 1])
        if self.quantizing:
            axes = (-2, -1) if self.per_axis else ()
            kernel = weight_quantization.fake_quantized(kernel, axes, self.bits)
            if input_step is not None:
                offset = weight_quantization.rounded_bias(offset, kernel, axes, self.bits, input_step)
            kernel = kernel if self.per_axis else weight_quantization.with_one_range(kernel)
        images = _as_images(inputs)
        values = tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "VALID") + offset
        return values if images is inputs else tf.reshape(values, _shape(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the output, that of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes, the layer serialized."""
        own = {"normalization": tf_keras.layers.serialize(self.normalization)}
        return {**super().get_config(), **own, "bits": self.bits, "per_axis": self.per_axis}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "QuantizedAffine":
        """Makes the layer from `get_config`."""
        normalization = tf_keras.layers.deserialize(config["normalization"], custom_objects=custom_objects)
        return cls(**{**config, "normalization": normalization})


def _shape(tensor: tf.Tensor) -> list[Any]:
    """The shape, as numbers where they are known."""
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def _as_images(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor with three dimensions beside the batch, the last the channels."""
    batch, *inner = _shape(tensor)
    channels = inner[-1]
    if len(inner) == 3:
        return tensor
    if len(inner) < 3:
        return tf.reshape(tensor, [batch, *[1] * (3 - len(inner)), *inner])
    return tf.reshape(tensor, [batch, inner[0], -1, channels])
