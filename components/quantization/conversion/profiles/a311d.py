"""The VeriSilicon NPU of Amlogic A311D boards (Khadas VIM3), through TFLite's vx-delegate: one scale per weight.

https://github.com/tensorflow/tensorflow/issues/50490
"""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(name="a311d", per_channel_dense=False, per_channel_weights=False)
