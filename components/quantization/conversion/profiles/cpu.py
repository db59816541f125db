"""TFLite on a CPU with its own kernels and XNNPACK."""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(
    name="cpu",
    per_channel_dense=True,
    weight_bits=(4, 8, 16),
    activation_types=("INT8", "UINT8", "INT16", "FLOAT32"),
)
