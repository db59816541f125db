"""An op whose version is higher than it needs, since the op table's entry that it shares was raised for another op."""

from typing import Any

from components.quantization.conversion.rewrites._editor import GraphEditor

CODES = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "QUANTIZE",
    "TRANSPOSE",
    "SPLIT",
    "CONCATENATION",
    "RELU6",
    "RELU",
)


def replacement(editor: GraphEditor, operator: Any) -> list[Any] | None:
    """Returns the op in the version that it needs; None if it has that."""
    version = editor.content_version(operator)
    if version is None or version >= editor.version(operator):
        return None
    editor.set_version(operator, editor.code(operator), version)
    return [operator]
