"""A TRANSPOSE_CONV with a fused activation, as one without and an op of the activation.

Both clip the same integers: the tensor between them has the scale and zero point of the result, so that the activation
multiplies by one and clips at the same steps as the fused one.
"""

from typing import Any

from components.quantization.conversion.rewrites._editor import GraphEditor
from components.quantization.conversion.tflite_schema import schema

CODES = ("TRANSPOSE_CONV",)

_ACTIVATIONS = {
    schema.ActivationFunctionType.RELU: "RELU",
    schema.ActivationFunctionType.RELU6: "RELU6",
    schema.ActivationFunctionType.RELU_N1_TO_1: "RELU_N1_TO_1",
}


def replacement(editor: GraphEditor, operator: Any) -> list[Any] | None:
    """Returns the convolution and the activation; None for widths other than 8 bits and other activations."""
    activation = _ACTIVATIONS.get(operator.builtinOptions.fusedActivationFunction)
    (result,) = operator.outputs
    if activation is None or not editor.is_8_bit(result):
        return None
    between = editor.add_like(result, f"{editor.name(result)}/before_{activation.lower()}", editor.shape(result))
    operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
    plain = editor.operator("TRANSPOSE_CONV", operator.inputs, [between], operator.builtinOptions)
    return [plain, editor.operator(activation, [between], [result])]
