"""A QUANTIZE of a constant with a scale per channel, as the constant that it computes.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/internal/reference/quantize.h
"""

from typing import Any

import numpy as np

from components.quantization.conversion.rewrites._editor import GraphEditor
from components.quantization.conversion.tflite_schema import schema

CODES = ("QUANTIZE",)


def replacement(editor: GraphEditor, operator: Any) -> list[Any] | None:
    """Makes the result a constant and returns no op; None for computed inputs, outputs of the model and other types."""
    (source,), (result,) = operator.inputs, operator.outputs
    values, target = editor.constant(source), editor.tensor(result)
    scale = np.asarray(target.quantization.scale, np.float32)
    if values is None or values.dtype != np.float32 or target.type != schema.TensorType.INT8 or editor.is_edge(result):
        return None
    shape = [1] * values.ndim
    shape[target.quantization.quantizedDimension] = scale.size
    steps = values / scale.reshape(shape)
    # Half a step is rounded away from zero.
    rounded = np.trunc(steps.astype(np.float64) + np.copysign(0.5, steps))
    zero_point = np.asarray(target.quantization.zeroPoint, np.float64).reshape(shape)
    editor.make_constant(result, np.clip(rounded + zero_point, -128, 127).astype(np.int8))
    return []
