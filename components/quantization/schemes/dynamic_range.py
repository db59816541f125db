"""8-bit weights and float activations, quantized as they come where a kernel can: a baseline without training.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/post_training_quant.ipynb
"""

from components.quantization.schemes import QuantizationScheme

SCHEME = QuantizationScheme(name="dynamic_range", activation_bits=32)
