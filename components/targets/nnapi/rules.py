"""The rules by which TFLite's delegate hands an op to Android's Neural Networks API.

They are checked in this order, and a status is the delegate's own name of the failure. Their source is that of
`operations`.
"""

from components.targets._operation import Operation
from components.targets._rules import Rule, dotted, scales_of_dense, unknown_size
from components.targets.nnapi.operations import (
    CONSTANTS,
    FIRST_LEVEL_OF_CHANNELS,
    FIRST_LEVEL_OF_INT8,
    INT32_SINCE,
    QUANTIZED_SINCE,
    SUPPORTED,
)

MAPPED = "Delegated to NNAPI"
_EIGHT_BITS = ("INT8", "UINT8")
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
_LARGEST_WINDOW = 256
_HIGHEST_RANK = 4


def delegated_op(operation: Operation, api_level: int) -> str | None:
    """The op is one that the delegate maps to an operation of NNAPI."""
    return None if operation.code in SUPPORTED else operation.op.name


def level_of_the_op(operation: Operation, api_level: int) -> str | None:
    """The device's API level has the operation."""
    since = SUPPORTED[operation.code].level
    return f"{operation.code}, of API level {since}, for {api_level}" if since > api_level else None


def known_version(operation: Operation, api_level: int) -> str | None:
    """The version of the op is one that the delegate knows."""
    highest, version = SUPPORTED[operation.code].version, operation.op.version
    return f"version {version}, expected at most {highest}" if highest and version > highest else None


def static_sizes(operation: Operation, api_level: int) -> str | None:
    """No tensor has a dimension that is unknown until the model runs."""
    return unknown_size(operation)


def operand_type(operation: Operation, api_level: int) -> str | None:
    """The first operand is of a type that the operation computes with, in that API level."""
    tensor = operation.input
    if tensor is None:
        return None
    dtype, code = tensor.dtype, operation.code
    if dtype not in SUPPORTED[code].dtypes or any(output.dtype == "INT16" for output in operation.outputs):
        return dtype if dtype not in SUPPORTED[code].dtypes else "INT16"
    table = QUANTIZED_SINCE if dtype in _EIGHT_BITS else INT32_SINCE if dtype == "INT32" else {}
    since = table.get(code, api_level)
    return f"{dtype}, of API level {since}, for {api_level}" if since > api_level else None


def signed_data(operation: Operation, api_level: int) -> str | None:
    """INT8 data need API level 30, the first with TENSOR_QUANT8_ASYMM_SIGNED."""
    signed = any(tensor.dtype == "INT8" for tensor in operation.data)
    return f"INT8 for {api_level}" if signed and api_level < FIRST_LEVEL_OF_INT8 else None


def one_scale_of_dense(operation: Operation, api_level: int) -> str | None:
    """Weights of a FULLY_CONNECTED have one scale."""
    return scales_of_dense(operation)


def channels_of_convolutions(operation: Operation, api_level: int) -> str | None:
    """Weights of a convolution with a scale per channel need API level 29."""
    if operation.code not in _CONVOLUTIONS or api_level >= FIRST_LEVEL_OF_CHANNELS:
        return None
    weights = operation.operands[1] if len(operation.operands) > 1 else None
    return f"{len(weights.scale)} scales" if weights is not None and len(weights.scale) > 1 else None


def restricted_scales(operation: Operation, api_level: int) -> str | None:
    """Below API level 29 the scale of the output is above that of the input times that of the weights."""
    if operation.code not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") or api_level >= 29:
        return None
    tensors = (*operation.operands[:2], operation.output)
    scales = [tensor.scale[0] for tensor in tensors if tensor is not None and tensor.scale]
    if len(scales) < 3 or scales[0] * scales[1] < scales[2]:
        return None
    return f"{scales[2]:g}, expected above {scales[0] * scales[1]:g}"


def bias_of_convolutions(operation: Operation, api_level: int) -> str | None:
    """A CONV_2D has a bias."""
    return "none" if operation.code == "CONV_2D" and len(operation.operands) != 3 else None


def dilated_convolutions(operation: Operation, api_level: int) -> str | None:
    """A dilated convolution needs API level 29."""
    if operation.code not in ("CONV_2D", "DEPTHWISE_CONV_2D") or api_level >= 29:
        return None
    dilations = (operation.options["dilation_height"], operation.options["dilation_width"])
    return None if dilations == (1, 1) else dotted(dilations)


def constant_operands(operation: Operation, api_level: int) -> str | None:
    """Shapes, sizes, axes and weights that decide the size of the output are constants."""
    positions = (i for i in CONSTANTS.get(operation.code, ()) if i < len(operation.operands))
    computed = (t for i in positions if (t := operation.operands[i]) is not None and t.constant is None)
    return next((tensor.name or "a tensor that is computed" for tensor in computed), None)


def low_rank(operation: Operation, api_level: int) -> str | None:
    """Tensors have at most four dimensions."""
    return next((dotted(tensor.shape) for tensor in operation.data if len(tensor.shape) > _HIGHEST_RANK), None)


def no_fused_activation(operation: Operation, api_level: int) -> str | None:
    """A CONCATENATION or an L2_NORMALIZATION has no fused activation."""
    fused = operation.code in ("CONCATENATION", "L2_NORMALIZATION") and operation.options["activation"]
    return "one" if fused else None


def small_window(operation: Operation, api_level: int) -> str | None:
    """The window of an AVERAGE_POOL_2D of integers has at most 256 elements, unless an accelerator is chosen."""
    if operation.code != "AVERAGE_POOL_2D" or operation.input is None or operation.input.dtype not in _EIGHT_BITS:
        return None
    window = operation.options["filter_height"], operation.options["filter_width"]
    return dotted(window) if window[0] * window[1] > _LARGEST_WINDOW else None


def scale_of_mean(operation: Operation, api_level: int) -> str | None:
    """A MEAN has the scale and the zero point of its input, and an output of one dimension at least."""
    if operation.code != "MEAN" or operation.input is None or operation.output is None:
        return None
    source, result = operation.input, operation.output
    if not result.shape:
        return "a scalar"
    same = (source.scale, source.zero_point) == (result.scale, result.zero_point)
    return None if same else "another scale or zero point"


def centers_of_resized(operation: Operation, api_level: int) -> str | None:
    """A resize with align_corners or half_pixel_centers needs API level 30."""
    if not operation.code.startswith("RESIZE_") or api_level >= 30:
        return None
    return next((name for name in ("align_corners", "half_pixel_centers") if operation.options[name]), None)


def uncropped(operation: Operation, api_level: int) -> str | None:
    """A BATCH_TO_SPACE_ND crops nothing."""
    return "crops" if operation.code == "BATCH_TO_SPACE_ND" and operation.integers(2) != (0, 0, 0, 0) else None


def inner_pack(operation: Operation, api_level: int) -> str | None:
    """A PACK does not make the last dimension."""
    if operation.code != "PACK" or operation.input is None:
        return None
    axis = operation.options["axis"]
    return f"axis {axis}" if axis in (-1, len(operation.input.shape)) else None


RULES: tuple[Rule[Operation, int], ...] = (
    Rule("kUnsupportedOperator", delegated_op),
    Rule("kUnsupportedAndroidVersion", level_of_the_op),
    Rule("kUnsupportedOperatorVersion", known_version),
    Rule("kInputTensorShouldHaveConstantShape", static_sizes),
    Rule("kUnsupportedInputType", operand_type),
    Rule("kUnsupportedInputType", signed_data),
    Rule("kUnsupportedQuantizationType", one_scale_of_dense),
    Rule("kUnsupportedQuantizationType", channels_of_convolutions),
    Rule("kNotRestrictedScaleCompliant", restricted_scales),
    Rule("kMissingRequiredOperand", bias_of_convolutions),
    Rule("kUnsupportedOperandValue", dilated_convolutions),
    Rule("kInputTensorShouldHaveConstantShape", constant_operands),
    Rule("kUnsupportedOperandRank", low_rank),
    Rule("kNoActivationExpected", no_fused_activation),
    Rule("kUnsupportedOperandSize", small_window),
    Rule("kUnsupportedOutputType", scale_of_mean),
    Rule("kUnsupportedOperandValue", centers_of_resized),
    Rule("kUnsupportedOperandValue", uncropped),
    Rule("kUnsupportedOperandValue", inner_pack),
)
EDITS = {
    "kUnsupportedOperator": "replace it by an op that is delegated, see SUPPORT.md, or move it to the end of the model",
    "kUnsupportedAndroidVersion": "raise the lowest API level of the app, or replace the op",
    "kUnsupportedOperatorVersion": "convert with fewer of the converter's newer features, such as dilated or grouped"
    " variants of the op",
    "kInputTensorShouldHaveConstantShape": "give the model inputs of a fixed size, and shapes and axes as constants",
    "kUnsupportedInputType": "compute in 8 bits, for API level 30 in INT8: leave casts and float edges out",
    "kUnsupportedQuantizationType": 'convert with profile "nnapi", which gives Dense layers one scale',
    "kNotRestrictedScaleCompliant": "raise the lowest API level of the app to 29",
    "kMissingRequiredOperand": "give the convolution a bias",
    "kUnsupportedOperandValue": "raise the lowest API level of the app as the rule asks, or leave out the dilation, the"
    " crops or the packing along the last axis",
    "kUnsupportedOperandRank": "reshape to at most four dimensions around the op",
    "kNoActivationExpected": "put the activation into a layer of its own",
    "kUnsupportedOperandSize": "pool in two steps of smaller windows",
    "kUnsupportedOutputType": "use AveragePooling2D over the whole image instead of a mean",
}


def edit(op: str, status: str) -> str:
    """Returns what to change in a model, of an op and its status; "" where nothing is known."""
    return EDITS.get(status, "")
