"""TFLite on a CPU with its own kernels and XNNPACK."""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(name="cpu", per_channel_dense=True)
