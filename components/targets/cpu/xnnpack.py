"""Which ops XNNPACK runs on a CPU, and which TFLite's own kernels do.

Without running anything, by rules; with TensorFlow's interpreter, by asking it what its delegate took. The rules are of
TensorFlow 2.16, as its interpreter delegates models of one op each, and of
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/delegates/xnnpack/README.md
"""

from components.targets._operation import Operation
from components.targets._rules import Rule, unknown_size

DELEGATED = "Delegated to XNNPACK"
BUILTIN = "TFLite builtin kernel"
CUSTOM = "Not a TFLite builtin"

_OF_INTEGERS = """
ADD CONCATENATION CONV_2D DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE ELU FULLY_CONNECTED LEAKY_RELU LOGISTIC
MAX_POOL_2D MEAN MUL PAD QUANTIZE RESHAPE RESIZE_BILINEAR SLICE SPACE_TO_DEPTH SPLIT STRIDED_SLICE SUB TANH
TRANSPOSE TRANSPOSE_CONV
"""
_OF_FLOATS = """
ABS AVERAGE_POOL_2D CEIL DIV FLOOR HARD_SWISH MAXIMUM MINIMUM NEG PRELU RELU RELU6 RELU_N1_TO_1 ROUND SOFTMAX SQRT
SQUARE SQUARED_DIFFERENCE
"""
_QUANTIZED = frozenset(_OF_INTEGERS.split())
_FLOAT = _QUANTIZED | frozenset(_OF_FLOATS.split())
_BY_TYPE = {"INT8": _QUANTIZED, "UINT8": _QUANTIZED - {"ELU"}, "FLOAT32": _FLOAT}
_CONSTANTS = {"CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2), "TRANSPOSE_CONV": (0, 1, 3)}
_SECOND_IS_CONSTANT = ("MEAN", "PAD", "RESHAPE", "RESIZE_BILINEAR", "SLICE", "STRIDED_SLICE", "TRANSPOSE", "PRELU")


def op_of_the_type(operation: Operation, context: None) -> str | None:
    """XNNPACK has the op for the type of its data."""
    tensor = operation.input
    dtype = tensor.dtype if tensor is not None else "no data"
    there = _types_of(operation.code)
    return None if dtype in there else f"{operation.op.name} of {dtype}, expected {', '.join(there) or 'another op'}"


def static_sizes(operation: Operation, context: None) -> str | None:
    """No tensor has a dimension that is unknown until the model runs."""
    return unknown_size(operation)


def constant_operands(operation: Operation, context: None) -> str | None:
    """Weights, biases, shapes and axes are constants."""
    positions = _CONSTANTS.get(operation.code, (1,) if operation.code in _SECOND_IS_CONSTANT else ())
    computed = (
        tensor
        for i in positions
        if i < len(operation.operands) and (tensor := operation.operands[i]) is not None and tensor.constant is None
    )
    return next((tensor.name or "a tensor that is computed" for tensor in computed), None)


def mean_of_image(operation: Operation, context: None) -> str | None:
    """A MEAN is over height and width of an image, or over its width alone."""
    if operation.code != "MEAN" or operation.input is None:
        return None
    rank = len(operation.input.shape)
    axes = tuple(sorted(axis % rank for axis in operation.integers(1))) if rank else ()
    return None if rank == 4 and axes in ((1, 2), (2,)) else f"axes {axes} of {rank} dimensions"


def type_of_quantize(operation: Operation, context: None) -> str | None:
    """A QUANTIZE takes floats, or integers of the type that it makes."""
    if operation.code != "QUANTIZE" or operation.input is None or operation.output is None:
        return None
    types = operation.input.dtype, operation.output.dtype
    return None if types[0] in (types[1], "FLOAT32") else f"{types[0]} to {types[1]}"


RULES: tuple[Rule[Operation, None], ...] = (
    Rule(BUILTIN, op_of_the_type),
    Rule(BUILTIN, static_sizes),
    Rule(BUILTIN, constant_operands),
    Rule(BUILTIN, mean_of_image),
    Rule(BUILTIN, type_of_quantize),
)


def support_rows() -> list[tuple[str, ...]]:
    """Returns the rows of the table of ops on the support page."""
    return [(code, ", ".join(_types_of(code))) for code in sorted(_FLOAT)]


def _types_of(code: str) -> list[str]:
    """The types of data that XNNPACK has an op for."""
    return [dtype for dtype, codes in _BY_TYPE.items() if code in codes]
