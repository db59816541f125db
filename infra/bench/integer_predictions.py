"""The classes that an integer model predicts, with kernels of choice."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kernels = Literal["reference", "default"]


def predicted_classes(tflite: bytes, images: npt.NDArray[Any], kernels: Kernels) -> npt.NDArray[np.int64]:
    """Runs the model on each image in turn; of equal outputs the first counts.

    Args:
      tflite: A model with one int8 input and one int8 output.
      images: Of shape (images, ...), in the model's own units.
      kernels: "reference" for TFLite's reference kernels, in fixed point; "default" for those that an interpreter takes
        if nobody chooses: XNNPACK's on a CPU.
    """
    import tensorflow as tf

    from components.quantization.interpreter import quantize

    resolvers = tf.lite.experimental.OpResolverType
    resolver = resolvers.BUILTIN_REF if kernels == "reference" else resolvers.AUTO
    interpreter = tf.lite.Interpreter(model_content=tflite, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = source["quantization"]
    classes = np.empty(len(images), np.int64)
    for index in range(len(images)):
        values = quantize(images[index : index + 1], scale, zero_point, source["dtype"])
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        classes[index] = np.argmax(interpreter.get_tensor(result["index"])[0])
    return classes
