"""As full_int8, with one scale per weight tensor, for back ends that know no per-axis scales."""

from components.quantization.schemes import QuantizationScheme

SCHEME = QuantizationScheme(name="full_int8_per_tensor", per_axis_weights=False)
