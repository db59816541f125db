"""Quantization-aware training with tfmot as its guide has it, by hand: what the benchmarks compare with.

https://www.tensorflow.org/model_optimization/guide/quantization/training_example
"""

from typing import Any


def quantize_model(model: Any) -> Any:
    """Returns tfmot's quantization-aware copy of a tf_keras model, to be compiled and fine-tuned."""
    import tensorflow_model_optimization as tfmot

    return tfmot.quantization.keras.quantize_model(model)


def convert(quantized: Any) -> bytes:
    """Returns the .tflite of a quantization-aware-trained model, with int8 inputs and outputs."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(quantized)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    tflite: bytes = converter.convert()
    return tflite


def scale_counts(quantized: Any) -> dict[str, int]:
    """Returns how many scales the weights of each layer have in training, by the layer's name."""
    counts = {}
    for wrapper in quantized.layers:
        for _, _, ranges in getattr(wrapper, "_weight_vars", ()):
            counts[wrapper.layer.name] = int(ranges["min_var"].shape.num_elements())
    return counts
