"""8-bit weights (symmetric, per-axis for convolutions) and 8-bit activations (asymmetric, per-tensor).

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/quantization_spec.md
"""

from components.quantization.schemes import QuantizationScheme

SCHEME = QuantizationScheme(name="full_int8")
