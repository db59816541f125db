"""Separable convolutions become a depthwise and a pointwise one."""

from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.surgery.graph import Call, Rewriter

TITLE = "split separable convolutions"

layers = tf_keras.layers


def applies(call: Call) -> bool:
    """Whether the call is of a separable convolution that can be split."""
    layer = call.layer
    if isinstance(layer, layers.SeparableConv1D):
        return bool(layer.padding != "causal" and layer.data_format == "channels_last")
    return isinstance(layer, layers.SeparableConv2D)


def rewrite(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rewriter: Rewriter) -> Any:
    """Applies both convolutions; the second keeps the bias and the activation."""
    del kwargs
    layer = call.layer
    one_dimensional = isinstance(layer, layers.SeparableConv1D)
    depthwise, pointwise = rewriter.once(layer, lambda: _split(layer, one_dimensional, rewriter))
    values = tf.expand_dims(args[0], 1) if one_dimensional else args[0]
    values = pointwise(depthwise(values))
    return tf.squeeze(values, [1]) if one_dimensional else values


def _split(layer: Any, one_dimensional: bool, rewriter: Rewriter) -> tuple[Any, Any]:
    weights = layer.get_weights()
    if one_dimensional:
        weights = [weights[0][None], weights[1][None], *weights[2:]]

    def two(sizes: Any, first: int) -> tuple[int, int]:
        return (first, sizes[0]) if one_dimensional else (sizes[0], sizes[-1])

    strides = (layer.strides[0],) * 2 if one_dimensional else layer.strides
    depthwise = layers.DepthwiseConv2D(
        two(layer.kernel_size, 1),
        strides=strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        data_format=layer.data_format,
        dilation_rate=two(layer.dilation_rate, 1),
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        trainable=layer.trainable,
        name=rewriter.unique(f"{layer.name}_depthwise"),
    )
    pointwise = layers.Conv2D(
        layer.filters,
        1,
        data_format=layer.data_format,
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_constraint=layer.bias_constraint,
        trainable=layer.trainable,
        name=layer.name,
    )
    rewriter.give_weights(depthwise, weights[:1])
    rewriter.give_weights(pointwise, weights[1:])
    return depthwise, pointwise
