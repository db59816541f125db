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
    from components.quantization.interpreter import IntegerModel

    model = IntegerModel(tflite, kernels)
    (name,) = model.input_names
    (scores,) = model.predict({name: images}).values()
    return scores.argmax(-1)
