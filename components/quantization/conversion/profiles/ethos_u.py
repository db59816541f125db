"""Arm Ethos-U, compiled by Vela: 8-bit weights with 8-bit or 16-bit activations, a scale per channel in convolutions.

8-bit activations may be unsigned: https://pypi.org/project/ethos-u-vela/

Vela puts ops on the NPU with a scale per channel for CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV, newer versions
for FULLY_CONNECTED too. The rest runs on TensorFlow Lite for Microcontrollers, which refuses such a FULLY_CONNECTED.
https://review.mlplatform.org/plugins/gitiles/ml/ethos-u/ethos-u-vela/+/HEAD/SUPPORTED_OPS.md
"""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(
    name="ethos_u",
    per_channel_dense=False,
    activation_types=("INT8", "UINT8", "INT16"),
    allowed_custom_ops=("ethos-u",),
)
