"""Models as quantization-aware training leaves them, made by hand: weights on their grid, ranges known."""

import numpy as np
import tf_keras

from components.quantization.qat.fake_quantization import FakeQuantize

layers = tf_keras.layers

# The axes of a kernel that keep their scales, by layer.
_CHANNELS = {"Conv2D": (3,), "DepthwiseConv2D": (2, 3), "Dense": ()}


def convolutional(bits: int = 8, activation_bits: int = 8) -> tf_keras.Model:
    """A convolution, a depthwise convolution, pooling and a softmax on 8x8 images; untrained, without ranges."""

    def quantized(tensor: object, name: str) -> object:
        return FakeQuantize(activation_bits, name=name)(tensor)

    image = tf_keras.Input((8, 8, 1), name="image")
    x = quantized(image, "image_range")
    x = quantized(layers.ReLU(name="relu")(layers.Conv2D(9, 3, name="conv")(x)), "relu_range")
    x = quantized(layers.DepthwiseConv2D(3, name="depthwise")(x), "depthwise_range")
    x = layers.Flatten(name="flatten")(layers.MaxPooling2D(name="pool")(x))
    x = quantized(layers.Dense(10, name="dense")(x), "dense_range")
    x = layers.Softmax(name="probabilities")(x)
    x = FakeQuantize(activation_bits, fixed=(0.0, 255 / 256), name="probabilities_range")(x)
    return put_on_grid(tf_keras.Model(image, x), bits)


def put_on_grid(model: tf_keras.Model, bits: int, **bits_of: int) -> tf_keras.Model:
    """Rounds the kernels of a model to symmetric integers of that width, or of that of the layer's name; returns it."""
    for layer in model.layers:
        if type(layer).__name__ in _CHANNELS:
            kernel, *rest = layer.get_weights()
            largest = 2 ** (bits_of.get(layer.name, bits) - 1) - 1
            scale = kernel_scale(layer, largest)
            layer.set_weights([np.rint(kernel / scale) * scale, *rest])
    return model


def kernel_scale(layer: tf_keras.layers.Layer, largest: int) -> np.ndarray:
    """The scales of a kernel, of shape 1 along all axes without."""
    kernel = layer.get_weights()[0]
    axes = tuple(axis for axis in range(kernel.ndim) if axis not in _CHANNELS[type(layer).__name__])
    return np.abs(kernel).max(axis=axes, keepdims=True) / largest


def observe(model: tf_keras.Model, images: np.ndarray) -> tf_keras.Model:
    """Sets each range, one after the other, to that of the values that reach it; returns the model."""
    for layer in model.layers:
        if isinstance(layer, FakeQuantize) and layer.fixed is None:
            values = tf_keras.Model(model.inputs, layer.input)(images).numpy()
            layer.set_range(values.min(), values.max())
    return model
