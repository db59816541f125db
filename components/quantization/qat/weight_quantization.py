"""Fake quantization of weights, on exactly the grid that TensorFlow's converter will find.

The converter takes symmetric scales from the largest magnitude of a constant. So does this, at every step, from the
weights themselves: there is no range to learn, to save or to get out of step.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# The kernel of each layer, and the axes that keep a scale of their own with per-axis weights.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/quantization_spec.md
_CHANNEL_AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "Dense": ("kernel", ()),
    "Conv1D": ("kernel", (-1,)),
    "Conv2D": ("kernel", (-1,)),
    "DepthwiseConv1D": ("depthwise_kernel", (-2, -1)),
    "DepthwiseConv2D": ("depthwise_kernel", (-2, -1)),
    "Conv2DTranspose": ("kernel", (-2,)),
    "PReLU": ("alpha", ()),
}
# Those whose kernel has the channels of the input along its last axis but one.
_INPUT_CHANNELS = ("Dense", "Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D")
_GAINS_APART = 2.0  # one bit of the weights
_SMALLEST = 1e-30


def has_kernel(layer: Any) -> bool:
    """Whether the layer has a kernel that is trained with fake quantization."""
    return type(layer).__name__ in _CHANNEL_AXES


def kernel_name(layer: Any) -> str:
    """Returns the attribute that holds the layer's kernel."""
    return _CHANNEL_AXES[type(layer).__name__][0]


def output_axis(layer: Any) -> tuple[int, ...]:
    """Returns the axes of the kernel that make up the channels of the layer's output."""
    name = type(layer).__name__
    return (-1,) if name == "Dense" else _CHANNEL_AXES[name][1]


def scale_axes(layer: Any, per_axis: bool) -> tuple[int, ...]:
    """Returns the axes of the kernel along which each element has its own scale; none for one scale."""
    return _CHANNEL_AXES[type(layer).__name__][1] if per_axis else ()


def scales(kernel: tf.Tensor, axes: tuple[int, ...], bits: int) -> tf.Tensor:
    """Returns the scales of a kernel, of shape 1 along all axes but the given ones."""
    rank = len(kernel.shape)
    kept = {axis % rank for axis in axes}
    reduced = [axis for axis in range(rank) if axis not in kept]
    largest = tf.reduce_max(tf.abs(kernel), reduced, keepdims=True)
    return tf.maximum(largest, _SMALLEST) / float(2 ** (bits - 1) - 1)


def fake_quantized(kernel: tf.Tensor, axes: tuple[int, ...], bits: int) -> tf.Tensor:
    """Returns the kernel rounded to its grid: symmetric, from -(2^(bits-1) - 1), zero point 0; gradients pass."""
    step = tf.stop_gradient(scales(kernel, axes, bits))
    rounded = tf.round(kernel / step) * step
    return kernel + tf.stop_gradient(rounded - kernel)


def with_one_range(kernel: tf.Tensor) -> tf.Tensor:
    """Returns a kernel that is on its grid, marked so that the converter takes one scale for it."""
    largest = tf.maximum(tf.reduce_max(tf.abs(kernel)), _SMALLEST)
    # An int4 kernel is converted as one of 8 bits, whose extremes are the same, and packed afterwards.
    return tf.quantization.fake_quant_with_min_max_vars(kernel, -largest, largest, num_bits=8, narrow_range=True)


def along_output(values: tf.Tensor, layer: Any, kernel: tf.Tensor) -> tf.Tensor:
    """Reshapes one value per output channel so that it multiplies the layer's kernel."""
    axes = {axis % len(kernel.shape) for axis in output_axis(layer)}
    return tf.reshape(values, [size if axis in axes else 1 for axis, size in enumerate(kernel.shape)])


def takes_affine(layer: Any, gain: npt.ArrayLike, offset: npt.ArrayLike) -> bool:
    """Whether `gain * x + offset`, channel by channel, can be folded into the kernel and bias of a layer behind it.

    Zeros that pad its input would have to become other values, those of `-offset / gain`. Gains that differ much would
    cost the weights of some channels their precision, since all channels of the input share a scale of the weights.
    """
    sizes = np.abs(np.asarray(gain))
    padded = getattr(layer, "padding", "valid") != "valid"
    return bool(
        type(layer).__name__ in _INPUT_CHANNELS
        and getattr(layer, "groups", 1) == 1
        and not (padded and np.any(offset))
        and np.min(sizes) > 0.0
        and np.max(sizes) <= _GAINS_APART * np.min(sizes)
    )


def along_input(values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Reshapes one value per input channel so that it multiplies the kernel of a layer that `takes_affine` names."""
    return tf.reshape(values, [-1 if axis == len(kernel.shape) - 2 else 1 for axis in range(len(kernel.shape))])


def rounded_bias(
    bias: tf.Tensor, kernel: tf.Tensor, axes: tuple[int, ...], bits: int, input_step: tf.Tensor
) -> tf.Tensor:
    """Returns a bias on the grid of the accumulators, on which the converter rounds it to 32-bit integers.

    Args:
      bias: Float values, one for each channel of the output.
      kernel: The kernel, on its grid.
      axes: As in `scales`.
      bits: Width of the kernel's integers.
      input_step: Real value of one step of the inputs, a scalar; with 0, for an unknown range, the bias stays.
    """
    step = input_step * tf.reshape(scales(kernel, axes, bits), [-1])
    known = step > _SMALLEST
    return tf.where(known, tf.round(bias / tf.where(known, step, 1.0)) * step, bias)
