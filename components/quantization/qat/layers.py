"""Weighted layers of a quantization-aware model, with what is folded into them."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.qat import weight_quantization
from components.quantization.qat.quantized_affine import inference_affine


@tf_keras.saving.register_keras_serializable("tfx_qat")
class QuantizedWeights(tf_keras.layers.Layer):  # type: ignore[misc]  # tf_keras has no types
    """A weighted layer whose kernel is on the integer grid, with the normalization behind it folded at inference.

    In training the normalization sees the batch, as it does in the float model; with one scale for each channel of the
    output that is the same as quantizing the folded kernel. At inference kernel and bias are the folded ones, which is
    what the converter reads. A constant gain and offset before the layer, such as those of Rescaling, are a part of
    kernel and bias in training too.

    Attributes:
      layer: The layer, its activation linear.
      normalization: A BatchNormalization or ChannelAffine behind it, or None.
      preprocessing: Gain and offset before it, each (input channels,), or None.
      quantizing: Whether kernels are quantized; off only to prove that all else is as in the float model.
    """

    def __init__(
        self,
        layer: Any,
        normalization: Any = None,
        bits: int = 8,
        per_axis: bool = True,
        preprocessing: Sequence[Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Wraps a layer.

        Args:
          layer: The layer.
          normalization: What is folded into it from behind, or None.
          bits: Width of its weights.
          per_axis: One scale for each output channel where the integer op has them, else one for the kernel.
          preprocessing: Gain and offset that are folded into it from before, or None.
          **kwargs: Those of a Keras layer.
        """
        super().__init__(**kwargs)
        self.supports_masking = layer.supports_masking
        self.layer = layer
        self.normalization = normalization
        self.bits = bits
        self.axes = weight_quantization.scale_axes(layer, per_axis)
        self.per_axis = per_axis
        self.preprocessing = None if preprocessing is None else np.asarray(preprocessing, np.float32)
        self.quantizing = True

    def build(self, input_shape: Any) -> None:
        """Builds both layers."""
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        if self.normalization is not None and not self.normalization.built:
            self.normalization.build(self.layer.compute_output_shape(input_shape))
            self.normalization.built = True
        super().build(input_shape)

    @property
    def kernel(self) -> tf.Tensor:
        """The float kernel, with the gain before it."""
        kernel = tf.convert_to_tensor(getattr(self.layer, weight_quantization.kernel_name(self.layer)))
        if self.preprocessing is None:
            return kernel
        return kernel * weight_quantization.along_input(self.preprocessing[0], kernel)

    def deployed_kernel(self) -> tf.Tensor:
        """Returns the kernel as the integer model holds it, in real values: folded and on its grid."""
        kernel = self.kernel
        if self.normalization is not None:
            gain, _ = inference_affine(self.normalization)
            kernel *= weight_quantization.along_output(gain, self.layer, kernel)
        return self._quantized(kernel)

    def scale_count(self) -> int:
        """Returns how many scales the kernel has."""
        return int(tf.size(weight_quantization.scales(self.kernel, self.axes, self.bits)))

    @property
    def bias(self) -> tf.Tensor | None:
        """The float bias; None if there is none."""
        return self.layer.bias if getattr(self.layer, "use_bias", False) else None

    def call(self, inputs: tf.Tensor, input_step: tf.Tensor | None = None, training: bool | None = None) -> tf.Tensor:
        """Computes as the integer model, in real values.

        Args:
          inputs: What the layer takes.
          input_step: Real value of one step of the integers that stand for the inputs, to round the bias with at
            inference; None to leave it.
          training: Whether this is a training step.
        """
        if self.normalization is not None:
            if training or not self.quantizing:
                return self.normalization(self._trained(inputs, self._training_kernel()), training=training)
            return self.folded(inputs, input_step)
        if training:
            return self._trained(inputs, self._quantized(self.kernel))
        return self._deployed(inputs, self.bias, input_step)

    def folded(self, inputs: tf.Tensor, input_step: tf.Tensor | None = None) -> tf.Tensor:
        """Computes as at inference, with the normalization in kernel and bias; arguments as those of `call`."""
        gain, offset = inference_affine(self.normalization)
        bias = offset if self.bias is None else self.bias * gain + offset
        return self._deployed(inputs, bias, input_step)

    def _trained(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return self._apply(inputs, kernel, self._with_offset(self.bias, kernel))

    def _deployed(self, inputs: tf.Tensor, bias: tf.Tensor | None, input_step: tf.Tensor | None) -> tf.Tensor:
        kernel = self.deployed_kernel()
        bias = self._with_offset(bias, kernel)
        if self.quantizing:
            if bias is not None and input_step is not None:
                bias = weight_quantization.rounded_bias(bias, kernel, self.axes, self.bits, input_step)
            # Without a range of its own, the converter gives a convolution's kernel one scale for each channel.
            if not self.per_axis and weight_quantization.scale_axes(self.layer, per_axis=True):
                kernel = weight_quantization.with_one_range(kernel)
        return self._apply(inputs, kernel, bias)

    def _training_kernel(self) -> tf.Tensor:
        """The kernel before the normalization, on the grid that it will have behind it."""
        kernel = self.kernel
        if not self.quantizing or len(self.axes) == len(weight_quantization.output_axis(self.layer)):
            return self._quantized(kernel)
        # One scale for all channels: that of the folded kernel. One whose gain is 0 has no part in it.
        gain = weight_quantization.along_output(inference_affine(self.normalization)[0], self.layer, kernel)
        gain = tf.stop_gradient(gain)
        alive = tf.abs(gain) > 1e-12
        return tf.where(alive, self._quantized(kernel * gain) / tf.where(alive, gain, 1.0), kernel)

    def _quantized(self, kernel: tf.Tensor) -> tf.Tensor:
        return weight_quantization.fake_quantized(kernel, self.axes, self.bits) if self.quantizing else kernel

    def _with_offset(self, bias: tf.Tensor | None, kernel: tf.Tensor) -> tf.Tensor | None:
        """The bias and what the offset before the layer adds to it, by the kernel as it is computed with."""
        if self.preprocessing is None or not self.preprocessing[1].any():
            return bias
        gain, offset = self.preprocessing
        summed = [axis for axis in range(len(kernel.shape)) if axis not in self._output_axes(kernel)]
        added = tf.reduce_sum(kernel * weight_quantization.along_input(offset / gain, kernel), summed)
        added = tf.reshape(added, [-1])
        return added if bias is None else bias + added

    def _output_axes(self, kernel: tf.Tensor) -> set[int]:
        return {axis % len(kernel.shape) for axis in weight_quantization.output_axis(self.layer)}

    def _apply(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
        replaced = {weight_quantization.kernel_name(self.layer): kernel}
        if bias is not None:
            replaced |= {"bias": bias, "use_bias": True}
        with _replaced(self.layer, replaced):
            return self.layer.call(inputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the mask that the layer passes on."""
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the output."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes, layers serialized."""
        serialize = tf_keras.layers.serialize
        normalization = None if self.normalization is None else serialize(self.normalization)
        own = {
            "layer": serialize(self.layer),
            "normalization": normalization,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.tolist(),
        }
        return {**super().get_config(), **own, "bits": self.bits, "per_axis": self.per_axis}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "QuantizedWeights":
        """Makes the layer from `get_config`."""
        config = dict(config)
        for key in ("layer", "normalization"):
            if config[key] is not None:
                config[key] = tf_keras.layers.deserialize(config[key], custom_objects=custom_objects)
        return cls(**config)


@contextlib.contextmanager
def _replaced(layer: Any, values: dict[str, Any]) -> Iterator[None]:
    """Gives a layer other values for some attributes, past Keras's tracking of its variables, and takes them back."""
    before = {name: layer.__dict__.get(name) for name in values}
    layer.__dict__.update(values)
    try:
        yield
    finally:
        layer.__dict__.update(before)
