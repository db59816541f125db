"""Android's Neural Networks API of Android 11 and later, the first with signed 8-bit activations.

Its fully connected operation wants weights of one scale (https://github.com/google-ai-edge/LiteRT/issues/3596). The
runtime around it follows TensorFlow, so there is no op-version ceiling: ops that the delegate does not take stay on the
CPU. https://developer.android.com/ndk/reference/group/neural-networks
"""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(name="nnapi", per_channel_dense=False)
