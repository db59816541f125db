"""TensorFlow Lite for Microcontrollers, with signed 8-bit or 16-bit activations.

Its kernels lost UINT8 in 2021, all but QUANTIZE, which takes the edges of a model to INT8 and back:
https://github.com/tensorflow/tflite-micro/issues/457

It looks ops up by their code alone, never by their version, so there is no op-version ceiling:
https://github.com/tensorflow/tflite-micro/blob/0cc6f983266d1bd6f5d66f485c546e8cc80ad6a2/tensorflow/lite/micro/micro_op_resolver.cc
Its fully connected kernel refuses a scale per output channel, or ignored all but the first before it learned to refuse:
https://github.com/tensorflow/tflite-micro/pull/2602
"""

from components.quantization.conversion.profiles import ConversionProfile

PROFILE = ConversionProfile(name="tflm", per_channel_dense=False, activation_types=("INT8", "INT16"))
