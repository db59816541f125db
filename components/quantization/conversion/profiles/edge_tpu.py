"""Coral Edge TPU: https://coral.ai/docs/edgetpu/models-intro/ .

The last compiler, version 16, is of July 2021: TensorFlow 2.6 was the next to be released. It does not parse a model
with a newer op, mapped or not (https://github.com/google-coral/edgetpu/issues/845). Compiled models hold its custom op.
It maps UINT8 convolutions and INT8 ones.
"""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(
    name="edge_tpu", per_channel_dense=False, max_runtime=(2, 6, 0), allowed_custom_ops=("edgetpu-custom-op",)
)
