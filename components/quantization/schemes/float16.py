"""16-bit float weights and 32-bit float activations: a baseline without training.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/post_training_float16_quant.ipynb
"""

from components.quantization.schemes import QuantizationScheme

SCHEME = QuantizationScheme(name="float16", weight_bits=16, activation_bits=32)
