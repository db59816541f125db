"""TFLite on a CPU with its own kernels and XNNPACK."""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(name="cpu", per_channel_dense=True, weight_bits=(4, 8, 16), activation_bits=(8, 16, 32))
