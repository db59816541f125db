"""A TILE of 8-bit integers, as a CONCATENATION of a tensor with itself for each dimension that is repeated."""

from typing import Any

from components.quantization.conversion.rewrites._editor import GraphEditor
from components.quantization.conversion.tflite_schema import schema

CODES = ("TILE",)


def replacement(editor: GraphEditor, operator: Any) -> list[Any] | None:
    """Returns the concatenations; None if how often to repeat is computed, or nothing is repeated."""
    source, repeats = operator.inputs
    (result,) = operator.outputs
    multiples = editor.constant(repeats)
    if multiples is None or not editor.is_8_bit(source):
        return None
    repeated = [(axis, int(times)) for axis, times in enumerate(multiples) if times != 1]
    if not repeated or any(times < 1 for _, times in repeated):
        return None
    operators = []
    shape = list(editor.shape(source))
    for axis, times in repeated:
        shape[axis] *= times
        last = (axis, times) == repeated[-1]
        tiled = result if last else editor.add_like(result, f"{editor.name(result)}/axis_{axis}", tuple(shape))
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        operators.append(editor.operator("CONCATENATION", [source] * times, [tiled], options))
        source = tiled
    return operators
