"""What fine-tuning stops moving at some step: the ranges of activations, the statistics of batch normalization."""

import tf_keras

from components.quantization.qat.fake_quantization import FakeQuantize


def quantizers(model: tf_keras.Model) -> list[FakeQuantize]:
    """Returns all quantizers of activations, at whatever depth."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, FakeQuantize)]


def freeze_observers(model: tf_keras.Model) -> None:
    """Keeps all ranges of activations as they are."""
    for quantizer in quantizers(model):
        quantizer.freeze()


def set_batch_normalization_trainable(model: tf_keras.Model, trainable: bool) -> bool:
    """Lets batch normalizations train, or normalize by their moving averages from now on.

    A step function that was traced before does not notice.

    Returns:
      Whether there are any.
    """
    found = [layer for layer in model._flatten_layers() if isinstance(layer, tf_keras.layers.BatchNormalization)]
    for layer in found:
        layer.trainable = trainable
    return bool(found)
