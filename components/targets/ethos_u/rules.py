"""The rules by which Vela puts an op on the NPU, as far as a model without Vela shows it.

They are those that version 5.2.0 documents of itself: `vela --supported-ops-report`. Each is one sentence: the
docstring of its check, the reason that the mapping gives, and a row of SUPPORT.md. What no rule here checks lowers the
confidence.
"""

import dataclasses
import math
from collections.abc import Iterable

from components.quantization.conversion.flatbuffer import Tensor
from components.targets._rules import Rule
from components.targets.ethos_u import ops
from components.targets.ethos_u.edits import OF_TYPE
from components.targets.ethos_u.operation import NpuOperation

ON_NPU = "On the NPU"
NO_REASON = "On the CPU; Vela gives no reason"
UNSUPPORTED_OP = "Unsupported opType"  # Vela's own words
NOT_KEPT = "A constraint of the op is not kept"

CERTAIN, DOCUMENTED, UNCHECKED = 1.0, 0.9, 0.7

U85 = "ethos-u85"
_VARIABLES = frozenset({"ASSIGN_VARIABLE", "READ_VARIABLE"})
_INTEGERS = frozenset({"INT8", "UINT8", "INT16", "INT32", "INT64"})
_VALID = 1  # of the enum Padding
_MOST_STRIDE, _MOST_PADDED_FILTER, _MOST_FILTER_HEIGHT = 3, 8, 256
_MOST_SOFTMAX, _MOST_ARG_MAX_DEPTH, _MOST_REDUCED = 65536, 127, 4096
_SCALES = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Whether an op runs on the NPU.

    Attributes:
      on_npu: Whether it does.
      status: `ON_NPU`, or in short why not.
      reason: The rule that refuses it, with what was got; empty on the NPU.
      confidence: How sure that is, 0..1.
    """

    on_npu: bool
    status: str
    reason: str
    confidence: float


def supported_op(operation: NpuOperation, family: str) -> str | None:
    """The op is one that Vela has for this NPU."""
    return None if operation.code in (ops.OPS_OF_U85 if family == U85 else ops.OPS) else operation.op.name


def integer_feature_maps(operation: NpuOperation, family: str) -> str | None:
    """Feature maps are integers, of Ethos-U85 booleans too; Ethos-U55 and U65 take 32 bits in few ops, and no 64."""
    if operation.code in _VARIABLES:
        return None
    allowed = _INTEGERS | {"BOOL"} if family == U85 else _INTEGERS - {"INT64"}
    if family != U85 and operation.code not in ops.OF_32_BITS:
        allowed = allowed - {"INT32"}
    if operation.code == "ARG_MAX":
        allowed = allowed | {"INT64"}
    return _dtype(t for t in operation.feature_maps if t.dtype not in allowed)


def fixed_shapes(operation: NpuOperation, family: str) -> str | None:
    """Shapes are fixed, except for the batch, which is 1 unless a program resizes it."""
    unknown = (t for t in operation.feature_maps if any(t.unknown_dimensions) or min(t.shape, default=0) < 0)
    return next((f"{t.name} {t.shape}, dimensions {t.unknown_dimensions} unknown" for t in unknown), None)


def shaped_feature_maps(operation: NpuOperation, family: str) -> str | None:
    """Feature maps that are computed have a shape: they are no scalars."""
    return _names(t for t in operation.feature_maps if not t.shape and t.constant is None)


def quantized_feature_maps(operation: NpuOperation, family: str) -> str | None:
    """Feature maps of 8 and 16 bits have a scale, and only weights one per channel."""
    narrow = [t for t in operation.feature_maps if t.dtype in ("INT8", "UINT8", "INT16")]
    if operation.code not in ops.UNQUANTIZED and any(not t.scale for t in narrow):
        return _names(t for t in narrow if not t.scale)
    return _names(t for t in narrow if len(t.scale) > 1)


def constant_parameters(operation: NpuOperation, family: str) -> str | None:
    """Axes, paddings, sizes and the like are constants."""
    if operation.code not in ops.WITH_CONSTANTS:
        return None
    return _names(t for t in operation.parameters if t.constant is None)


def eight_bit_weights(operation: NpuOperation, family: str) -> str | None:
    """Weights have 8 bits; those of convolutions, and biases, are constants."""
    weights, bias = operation.weights, operation.bias
    if weights is not None and weights.dtype not in ("INT8", "UINT8"):
        return f"{weights.name} of type {weights.dtype}"
    is_dense = operation.code == "FULLY_CONNECTED"
    return _names(t for t in (None if is_dense else weights, bias) if t is not None and t.constant is None)


def small_strides(operation: NpuOperation, family: str) -> str | None:
    """On Ethos-U55 and U65 strides are at most 3, or larger without padding and dilation; of TRANSPOSE_CONV 1 or 2."""
    options = operation.options
    if family == U85 or "stride_width" not in options:
        return None
    largest = max(options["stride_width"], options["stride_height"])
    dilated = max(options.get("dilation_width", 1), options.get("dilation_height", 1)) > 1
    if operation.code == "TRANSPOSE_CONV":
        sizes = [t.shape[1:3] for t in (*operation.inputs, operation.weights) if t is not None]
        allowed = [(1, 1), (2, 2)]
        allowed += [(2, 1)] if all(shape[:1] == (1,) for shape in sizes) else []
        allowed += [(1, 2)] if all(shape[1:] == (1,) for shape in sizes) else []
        stride = options["stride_width"], options["stride_height"]
        return None if stride in allowed else f"a stride of {stride[0]} x {stride[1]}"
    free = operation.code != "DEPTHWISE_CONV_2D" and not dilated and not _is_padded(operation)
    return None if largest <= _MOST_STRIDE or free else f"a stride of {largest}"


def small_filters(operation: NpuOperation, family: str) -> str | None:
    """Filters of pooling are at most 256 high, and of an average with padding at most 8 x 8."""
    options = operation.options
    if "filter_height" not in options:
        return None
    width, height = options["filter_width"], options["filter_height"]
    padded = operation.code == "AVERAGE_POOL_2D" and _is_padded(operation)
    most = (_MOST_PADDED_FILTER, _MOST_PADDED_FILTER) if padded else (2**16 // max(height, 1), _MOST_FILTER_HEIGHT)
    return None if width <= most[0] and height <= most[1] else f"{width} x {height}"


def small_reductions(operation: NpuOperation, family: str) -> str | None:
    """MEAN reduces axes of less than 4096 elements, of a batch of 1; SOFTMAX has fewer than 65536 rows."""
    if not operation.inputs:
        return None
    shape = operation.inputs[0].shape
    if operation.code == "SOFTMAX" and math.prod(shape[:-1][-2:]) >= _MOST_SOFTMAX:
        return f"{math.prod(shape[:-1][-2:])} rows"
    if operation.code != "MEAN":
        return None
    axes = [axis for axis in operation.integers(1) if -len(shape) <= axis < len(shape)]
    if any(shape[axis] >= _MOST_REDUCED for axis in axes):
        return f"shape {shape}"
    return f"a batch of {shape[0]}" if len(shape) == 4 and shape[0] > 1 else None


def small_arg_max(operation: NpuOperation, family: str) -> str | None:
    """On Ethos-U55 and U65 an ARG_MAX is over the last axis, of at most 127 elements."""
    if operation.code != "ARG_MAX" or family == U85 or not operation.inputs:
        return None
    shape, axes = operation.inputs[0].shape, operation.integers(1)
    if axes and shape and axes[0] not in (-1, len(shape) - 1):
        return f"axis {axes[0]}"
    return f"{shape[-1]} elements" if shape and shape[-1] > _MOST_ARG_MAX_DEPTH else None


def equal_quantization(operation: NpuOperation, family: str) -> str | None:
    """On Ethos-U55 and U65 operands and result of MAXIMUM and MINIMUM have one scale and zero point."""
    if operation.code not in ("MAXIMUM", "MINIMUM") or family == U85:
        return None
    kinds = {(t.scale, t.zero_point) for t in operation.feature_maps}
    return None if len(kinds) == 1 else f"{len(kinds)} quantizations"


def powers_of_two(operation: NpuOperation, family: str) -> str | None:
    """A resize is by a power of 2, on Ethos-U55 and U65 by 2, 4 or 8, or 2 with half-pixel centres, on both axes."""
    if not operation.code.startswith("RESIZE_") or not operation.inputs or not operation.outputs:
        return None
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    if len(before) != 4 or len(after) != 4 or before == after or before[1:3] == (1, 1):
        return None
    cut = int(bool(operation.options["align_corners"]))
    pairs = [(b - cut, a - cut) for b, a in zip(before[1:3], after[1:3], strict=True)]
    scales = [a / b if b > 0 else 1.0 if a == b else 0.0 for b, a in pairs]
    if family == U85:
        return None if all(s in {2.0**i for i in range(12)} for s in scales) else f"by {scales[0]:g} and {scales[1]:g}"
    allowed = (1, 2) if operation.code == "RESIZE_BILINEAR" and operation.options["half_pixel_centers"] else _SCALES
    alike = scales[0] == scales[1] or (1 in after[1:3] and 1.0 in scales)
    return None if alike and all(s in allowed for s in scales) else f"by {scales[0]:g} and {scales[1]:g}"


RULES: tuple[Rule[NpuOperation, str], ...] = (
    Rule(UNSUPPORTED_OP, supported_op),
    Rule(OF_TYPE, integer_feature_maps),
    Rule(NOT_KEPT, fixed_shapes),
    Rule(NOT_KEPT, shaped_feature_maps),
    Rule(NOT_KEPT, quantized_feature_maps),
    Rule(NOT_KEPT, constant_parameters),
    Rule(NOT_KEPT, eight_bit_weights),
    Rule(NOT_KEPT, small_strides),
    Rule(NOT_KEPT, small_filters),
    Rule(NOT_KEPT, small_reductions),
    Rule(NOT_KEPT, small_arg_max),
    Rule(NOT_KEPT, equal_quantization),
    Rule(NOT_KEPT, powers_of_two),
)


def decide(operation: NpuOperation, family: str) -> Decision:
    """Returns whether an op runs on the NPU.

    Args:
      operation: The op.
      family: The NPU, such as "ethos-u55".
    """
    for rule in RULES:
        got = rule.breaks(operation, family)
        if got is not None:
            return Decision(
                on_npu=False,
                status=rule.status,
                reason=f"{rule.text} Got {got}.",
                confidence=CERTAIN if rule.status == UNSUPPORTED_OP else DOCUMENTED,
            )
    return Decision(on_npu=True, status=ON_NPU, reason="", confidence=_confidence(operation.code))


def support_rows() -> list[tuple[str, ...]]:
    """Returns the rows of the table of ops on the support page."""
    return [
        (
            code,
            "U55, U65, U85" if code in ops.OPS else "U85",
            "yes" if code in ops.OF_32_BITS else "",
            "yes" if code in ops.UNQUANTIZED else "",
            str(_confidence(code)),
        )
        for code in sorted(ops.OPS_OF_U85)
    ]


def _confidence(code: str) -> float:
    """How sure it is that an op which breaks no rule is on the NPU."""
    return UNCHECKED if code in ops.PARTLY_CHECKED else DOCUMENTED


def _is_padded(operation: NpuOperation) -> bool:
    """Whether zeros are added: padding "same" that adds none is none to Vela."""
    options = operation.options
    if options["padding"] == _VALID or not operation.inputs or len(operation.inputs[0].shape) != 4:
        return options["padding"] != _VALID
    kernel = operation.weights.shape[1:3] if operation.weights is not None else ()
    filters = kernel or (options["filter_height"], options["filter_width"])
    strides = (options["stride_height"], options["stride_width"])
    return any(
        (math.ceil(size / max(stride, 1)) - 1) * stride + width > size
        for size, stride, width in zip(operation.inputs[0].shape[1:3], strides, filters, strict=True)
    )


def _dtype(tensors: Iterable[Tensor]) -> str | None:
    return next((f"{t.name or 'a tensor'} of type {t.dtype}" for t in tensors), None)


def _names(tensors: Iterable[Tensor]) -> str | None:
    return next((t.name or "a tensor without a name" for t in tensors), None)
