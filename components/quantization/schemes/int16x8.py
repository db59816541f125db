"""8-bit weights as in full_int8 and 16-bit activations (symmetric, per-tensor), for signals that 8 bits cannot hold.

The weights are trained on their grid. The ranges of the activations are calibrated when the model is converted, which
needs a representative dataset: TensorFlow's converter takes no trained range of 16 bits.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/post_training_integer_quant_16x8.ipynb
"""

from components.quantization.schemes import QuantizationScheme

SCHEME = QuantizationScheme(name="int16x8", activation_bits=16)
