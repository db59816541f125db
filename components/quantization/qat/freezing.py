"""What fine-tuning stops moving at some step: the ranges of activations, the statistics of batch normalization."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tf_keras

from components.quantization.qat.fake_quantization import FakeQuantize


def quantizers(model: tf_keras.Model) -> list[FakeQuantize]:
    """Returns all quantizers of activations, at whatever depth."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, FakeQuantize)]


def freeze_observers(model: tf_keras.Model) -> None:
    """Keeps all ranges of activations as they are."""
    for quantizer in quantizers(model):
        quantizer.freeze()


def require_finite_ranges(model: tf_keras.Model, where: str) -> None:
    """Checks the ranges of activations.

    Args:
      model: A model, quantized or not.
      where: What errors begin with.

    Raises:
      ValueError: If one is infinite or not a number.
    """
    ends = {
        each.name: (float(each.minimum.read_value()), float(each.maximum.read_value())) for each in quantizers(model)
    }
    broken = [f"{name} ({low:g} to {high:g})" for name, (low, high) in ends.items() if not np.isfinite(high - low)]
    if broken:
        raise ValueError(
            f"{where}: ranges are not finite in {', '.join(broken)}; look for features that are not numbers"
        )


def trainable_normalizations(model: tf_keras.Model) -> list[Any]:
    """Returns the batch normalizations that train, which those of a frozen part of the model do not.

    To freeze one sets its `trainable`; a step function that was traced before does not notice.
    """
    return [
        layer
        for layer in _with_trainable_parents(model)
        if isinstance(layer, tf_keras.layers.BatchNormalization) and layer.trainable
    ]


def _with_trainable_parents(layer: Any) -> Iterator[Any]:
    """All layers inside a layer, but those inside one that is frozen."""
    for inner in layer._flatten_layers(recursive=False, include_self=False):
        yield inner
        if inner.trainable:
            yield from _with_trainable_parents(inner)
