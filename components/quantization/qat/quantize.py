"""A float model made ready for quantization-aware training."""

import tensorflow_model_optimization as tfmot
import tf_keras

from components.quantization.qat.plan import plan
from components.quantization.schemes import QuantizationScheme, load_scheme


def quantize_model(model: tf_keras.Model, scheme: str | QuantizationScheme = "full_int8") -> tf_keras.Model:
    """Returns a copy of the model with fake quantization, ready to be compiled and fine-tuned.

    The copy starts from the model's weights; the model itself is left alone. Its ranges are learned in training:
    fine-tune it for at least one step before converting it.

    Args:
      model: A built Sequential or Functional tf_keras model, best already trained.
      scheme: A scheme or its name.

    Raises:
      ValueError: If layers cannot be quantized; names them all, each with its remedy.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="dense")])
    >>> [type(layer).__name__ for layer in quantize_model(model).layers]
    ['QuantizeLayer', 'QuantizeWrapperV2']
    """
    scheme = load_scheme(scheme)
    blockers = plan(model, scheme).blockers
    if blockers:
        listed = "; ".join(f"{layer.name} ({layer.layer}): {layer.reason}" for layer in blockers)
        raise ValueError(f"model {model.name!r} cannot be quantized: {listed}")
    keras = tfmot.quantization.keras
    tfmot_scheme = keras.default_8bit.Default8BitQuantizeScheme(disable_per_axis=not scheme.per_axis_weights)
    with keras.quantize_scope():
        # No prefix: layers and outputs keep the names that losses, signatures and users know them by.
        return keras.quantize_apply(keras.quantize_annotate_model(model), tfmot_scheme, quantized_layer_name_prefix="")
