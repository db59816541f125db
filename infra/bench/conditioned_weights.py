"""Random weights under which a deep model passes signals on, as a trained one does, instead of noise.

With what Keras initializes, most architectures are no test of arithmetic. Moving averages of 0 and 1 let activations
fade or explode; with those of the data, random ReLU nets are chaotic: at each layer normalization subtracts what the
images have in common and a ReLU halves the rest, so that the share of any noise grows by pi / (pi - 1), 1.7 dB
(https://arxiv.org/abs/1902.08129), and two correct computations that round differently end up with nothing in common.

So, with Keras's own random kernels:
- Normalizations get an offset of twice their gain: activation functions see mostly their smooth part.
- Those that end a branch of an addition get a quarter of both, as with SkipInit (https://arxiv.org/abs/2002.10444).
- Kernels with no normalization behind them get the variance of LeCun, 1 / fan-in.
- Moving averages are those of the given images. Nothing is trained.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

_GAIN = 0.5
_OFFSET_TO_GAIN = 2.0
_BRANCH = 0.25

layers = tf_keras.layers


def condition(model: tf_keras.Model, images: npt.NDArray[np.float32]) -> None:
    """Sets normalizations and the scale of kernels as above; random directions stay.

    Args:
      model: A functional model without nested models.
      images: What its normalizations take their statistics from: (examples, height, width, channels).
    """
    normalizations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    ends = {id(layer) for layer in _branch_ends(model)}
    for layer in normalizations:
        share = _BRANCH if id(layer) in ends else 1.0
        gain = share * _GAIN if layer.scale else 1.0
        if layer.scale:
            layer.gamma.assign(tf.fill(layer.gamma.shape, gain))
        layer.beta.assign(tf.fill(layer.beta.shape, gain * _OFFSET_TO_GAIN))
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.Dense) and hasattr(layer, "kernel") and not _is_normalized(layer):
            kernel = layer.kernel.numpy()
            layer.kernel.assign(kernel / kernel.std() / np.sqrt(np.prod(kernel.shape[:-1])))
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum


def _is_normalized(layer: Any) -> bool:
    return any(isinstance(node.outbound_layer, layers.BatchNormalization) for node in layer._outbound_nodes)


def _branch_ends(model: tf_keras.Model) -> Iterator[Any]:
    """The normalizations that end the longest branch of each addition, dropout apart."""
    depths: dict[int, int] = {}
    for layer in model.layers:  # in an order of computation
        depths[id(layer)] = 1 + max((depths[id(before)] for before in _before(layer)), default=0)
        if isinstance(layer, layers.Add):
            end = max(_before(layer), key=lambda before: depths[id(before)])
            if isinstance(end, layers.Dropout):
                (end,) = _before(end)
            if isinstance(end, layers.BatchNormalization):
                yield end


def _before(layer: Any) -> list[Any]:
    """The layers that a layer takes its inputs from."""
    if isinstance(layer, layers.InputLayer):
        return []
    return [tensor.node.layer for tensor in tf.nest.flatten(layer.input)]
