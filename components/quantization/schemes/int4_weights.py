"""4-bit weights (symmetric, -7 to 7, per-axis for convolutions) and 8-bit activations, for half of the storage.

Weights of CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED are packed two per byte as the tensor type INT4. Other ops
have no kernel for that; theirs are stored in 8 bits and hold the 15 values all the same.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/schema/schema.fbs
"""

from components.quantization.schemes import QuantizationScheme

SCHEME = QuantizationScheme(name="int4_weights", weight_bits=4)
