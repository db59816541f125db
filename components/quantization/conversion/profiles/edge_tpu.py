"""Coral Edge TPU: https://coral.ai/docs/edgetpu/models-intro/ ."""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(name="edge_tpu", per_channel_dense=False)
