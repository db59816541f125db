"""Which layers of a model lose most by quantization, measured one at a time."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.qat.calibration import model_inputs
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.qat.layers import QuantizedWeights
from components.quantization.qat.quantize import switch
from components.quantization.qat.quantized_affine import QuantizedAffine

_LOGGER = logging.getLogger(__name__)

# The worst layers: as many as make up this share of the noise of all, and at most that share of all layers.
_NOISE_SHARE = 0.8
_LAYER_SHARE = 0.5
_LOGGED_EVERY = 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """What quantizing one layer alone does to the outputs of a model.

    Attributes:
      layer: Name of the layer.
      noise: Power of the error of the outputs over their own power; that of several outputs, added up.
    """

    layer: str
    noise: float

    @property
    def sqnr_db(self) -> float:
        """The same as a ratio of signal to error."""
        return -10 * math.log10(self.noise) if self.noise else math.inf


def sensitivities(model: tf_keras.Model, batch: Mapping[str, Any]) -> tuple[Sensitivity, ...]:
    """Measures every layer with weights: its weights and the range of its output quantized, all else in floats.

    Args:
      model: From `quantize_model`, its ranges known by training or `calibrate`.
      batch: Features by name, some dozens of examples.

    Returns:
      One entry for each layer with weights, the most sensitive first.

    Raises:
      ValueError: If an input of the model is missing.
    """
    inputs = model_inputs(model, batch)
    weighted = [layer for layer in model.layers if isinstance(layer, QuantizedWeights | QuantizedAffine)]
    switch(model, quantizing=False)
    try:
        expected = tf.nest.flatten(model(inputs, training=False))
        found = []
        for index, layer in enumerate(weighted):
            affected = [layer, *_ranges_behind(layer)]
            _set(affected, True)
            outputs = tf.nest.flatten(model(inputs, training=False))
            _set(affected, False)
            found.append(Sensitivity(layer=layer.name, noise=sum(map(_noise, expected, outputs))))
            if not (index + 1) % _LOGGED_EVERY:
                _LOGGER.info("sensitivity: %d of %d layers measured", index + 1, len(weighted))
    finally:
        switch(model, quantizing=True)
    return tuple(sorted(found, key=lambda one: -one.noise))


def worst(measured: Sequence[Sensitivity]) -> tuple[str, ...]:
    """Returns the names of the layers that make up most of the noise, the most sensitive first; at least one.

    >>> worst([Sensitivity(layer="a", noise=0.5), Sensitivity(layer="b", noise=0.4), Sensitivity(layer="c", noise=0.1)])
    ('a',)
    """
    total, reached = sum(one.noise for one in measured), 0.0
    names: list[str] = []
    for one in measured:
        if names and (reached >= _NOISE_SHARE * total or len(names) + 1 > _LAYER_SHARE * len(measured)):
            break
        names.append(one.layer)
        reached += one.noise
    return tuple(names)


def _set(layers: Sequence[Any], quantizing: bool) -> None:
    for layer in layers:
        layer.quantizing = quantizing


def _ranges_behind(layer: Any) -> Iterator[FakeQuantize]:
    """The quantizers of what a layer computes, also where an activation lies between."""
    for node in layer._outbound_nodes:
        follower = node.layer
        if isinstance(follower, FakeQuantize):
            yield follower
        elif not isinstance(follower, QuantizedWeights | QuantizedAffine):
            yield from _ranges_behind(follower)


def _noise(expected: tf.Tensor, found: tf.Tensor) -> float:
    expected, found = tf.cast(expected, tf.float32), tf.cast(found, tf.float32)
    power = float(tf.reduce_sum(tf.square(expected)))
    return float(tf.reduce_sum(tf.square(expected - found))) / power if power else 0.0
