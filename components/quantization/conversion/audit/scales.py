"""Rules of scales and zero points of activations.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/quantization_spec.md
"""

import math
from collections.abc import Iterator

from components.quantization.conversion import same_scale
from components.quantization.conversion.audit.numerics import extreme_values
from components.quantization.conversion.audit.rules import (
    CHANNEL_AXIS,
    OF_REAL_NUMBERS,
    QUANTIZED,
    RANGES,
    Found,
    Place,
    Rule,
    is_sound,
)
from components.quantization.conversion.flatbuffer import Tensor

# Below it are only float32 numbers of fewer digits, which some devices take for 0.
_SMALLEST_SCALE = 2.0**-126
# The converter writes a scale as it is or rounds it once; kernels compare to this precision or copy integers.
_TOLERANCE = 1e-5
# Ops that hand integers on as they are. All inputs and outputs that are quantized share one scale.
_SAME_SCALE = same_scale.OPS | {"MAXIMUM", "MINIMUM"}
# Scale and zero point that kernels write, whatever the file says:
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/activations.cc
_FIXED = {
    ("SOFTMAX", "INT8"): (1 / 256, -128),
    ("SOFTMAX", "UINT8"): (1 / 256, 0),
    ("SOFTMAX", "INT16"): (1 / 32768, 0),
    ("LOGISTIC", "INT8"): (1 / 256, -128),
    ("LOGISTIC", "UINT8"): (1 / 256, 0),
    ("LOGISTIC", "INT16"): (1 / 32768, 0),
    ("TANH", "INT8"): (1 / 128, 0),
    ("TANH", "UINT8"): (1 / 128, 128),
    ("TANH", "INT16"): (1 / 32768, 0),
    ("L2_NORMALIZATION", "INT8"): (1 / 128, 0),
    ("L2_NORMALIZATION", "UINT8"): (1 / 128, 128),
    ("LOG_SOFTMAX", "INT8"): (16 / 256, 127),
    ("LOG_SOFTMAX", "UINT8"): (16 / 256, 255),
}
_FIXED_TOLERANCE = 1e-3

SCALE_COUNT = Rule(
    name="scale-count",
    kind="numeric",
    text="A tensor has no scale, one, or one per slice of its quantized dimension, and as many zero points.",
    fix="convert the model again: the file is damaged or was edited",
)
SCALE_VALUE = Rule(
    name="scale-value",
    kind="numeric",
    text="Scales are finite and at least 2**-126, the smallest float32 of full precision.",
    fix="give the tensor a range: train longer, or calibrate with examples that reach it",
)
ZERO_POINT = Rule(
    name="zero-point",
    kind="numeric",
    text="A zero point is a value of the tensor's type, and 0 for INT16.",
    fix="convert the model again with a converter that keeps to the TFLite quantization specification",
)
MISSING_SCALE = Rule(
    name="missing-scale",
    kind="numeric",
    text="Inputs, weights and results of convolutions, Dense layers, pools and activation functions have a scale.",
    fix="train or calibrate a range for it",
)
RESULT_SCALES = Rule(
    name="result-scales",
    kind="numeric",
    text="What convolutions, Dense layers, pools and activation functions compute has one scale.",
    fix="quantize activations with one scale; only constants have one per channel",
)
SAME_SCALE = Rule(
    name="same-scale",
    kind="numeric",
    text="INT8 and INT16 ops that hand integers on as they are have one scale and zero point at all ends.",
    fix="convert the model again, so that the converter puts a QUANTIZE between the scales",
)
FIXED_SCALE = Rule(
    name="fixed-scale",
    kind="numeric",
    text="Outputs of softmax, sigmoid, tanh, log-softmax and L2 normalization have the scale that kernels write.",
    fix="do not train or calibrate a range for this output",
)
MULTIPLIER = Rule(
    name="multiplier",
    kind="numeric",
    text="ADD, SUB and SQUARED_DIFFERENCE rescale their sum, which is kept with more bits, by less than 1.",
    fix="give the output a wider range, or its inputs a narrower one",
)
MISMATCH = Rule(
    name="uint8-scales",
    kind="note",
    text="UINT8 ops that hand integers on as they are, though the scales of their ends differ: real values change.",
    fix="compare the model's results on the device with those of the float model",
)
NOTES = (MISMATCH,)
RULES = (SCALE_COUNT, SCALE_VALUE, ZERO_POINT, MISSING_SCALE, RESULT_SCALES, SAME_SCALE, FIXED_SCALE, MULTIPLIER)


def check(place: Place) -> Iterator[Found]:
    """Yields what breaks the rules of an op."""
    dead = _dead(place)
    for index in dict.fromkeys((*place.op.inputs, *place.op.outputs)):
        tensor = place.graph.tensors[index]
        found = place.once(_tensor, tensor)
        harmless = found and index in dead and all(0 <= scale < math.inf for scale in tensor.scale)
        yield from (f for f in found if not (harmless and f.rule == SCALE_VALUE))
    if place.outputs and place.outputs[0].dtype != "UINT8":
        yield from _same_scale(place, SAME_SCALE)
    yield from _one_scale(place)
    yield from _fixed_scale(place)
    yield from _multiplier(place)


def check_uint8(place: Place) -> Iterator[Found]:
    """Yields UINT8 ops whose scales differ: converters of TensorFlow 1 wrote such models, and devices run them."""
    if place.outputs and place.outputs[0].dtype == "UINT8":
        yield from _same_scale(place, MISMATCH)


def _dead(place: Place) -> set[int]:
    """Weights that are all 0, and what is the same for any input because of them: their scale may be tiny."""
    dead: set[int] = place.known.setdefault((_dead,), set())
    op = place.op
    if op.code in CHANNEL_AXIS:
        weights = [i for i in op.operands[1:2] if i >= 0]
        dead |= {i for i in weights if place.once(extreme_values, place.graph.tensors[i]) == (0, 0)}
        is_dead = not dead.isdisjoint(op.inputs)
    else:
        sources = [i for i in op.inputs if place.graph.tensors[i].dtype in QUANTIZED]
        is_dead = op.code in _SAME_SCALE and bool(sources) and dead.issuperset(sources)
    if is_dead:
        dead |= set(op.outputs)
    return dead


def _tensor(tensor: Tensor) -> list[Found]:
    return list(_of_tensor(tensor))


def _of_tensor(tensor: Tensor) -> Iterator[Found]:
    if tensor.dtype not in RANGES and tensor.dtype not in ("INT32", "INT64"):
        return
    scales, zeros, axis = len(tensor.scale), len(tensor.zero_point), tensor.quantized_dimension
    slices = tensor.shape[axis] if 0 <= axis < len(tensor.shape) else None
    if scales != zeros or (scales > 1 and scales != slices):
        along = "no dimension" if slices is None else f"{slices} slices"
        reason = f"{scales} scales and {zeros} zero points for {along} of dimension {axis}"
        yield Found(rule=SCALE_COUNT, tensor=tensor, reason=reason)
    smallest = 0.0 if tensor.dtype in ("INT32", "INT64") else _SMALLEST_SCALE  # a bias has the product of two
    wrong = [scale for scale in tensor.scale if not smallest <= scale < math.inf]
    if wrong:
        yield Found(rule=SCALE_VALUE, tensor=tensor, reason=f"{len(wrong)} of {scales} scales such as {wrong[0]:g}")
    # Of wider types QUANTIZE takes any zero point; biases have a rule of their own.
    low, high = (0, 0) if tensor.dtype == "INT16" else RANGES.get(tensor.dtype, (-(2**31), 2**31 - 1))
    outside = [zero for zero in tensor.zero_point if not low <= zero <= high]
    if scales and outside:
        yield Found(rule=ZERO_POINT, tensor=tensor, reason=f"zero point {outside[0]}, not within {low}..{high}")


def _same_scale(place: Place, rule: Rule) -> Iterator[Found]:
    if place.op.code not in _SAME_SCALE or not place.outputs:
        return
    result = place.outputs[0]
    # The uint8 kernel of CONCATENATION rescales its inputs:
    # https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/concatenation.cc
    rescales = place.op.code == "CONCATENATION" and result.dtype == "UINT8"
    if rescales or result.dtype not in QUANTIZED or not is_sound(result):
        return
    for tensor in (*place.inputs, *place.outputs[1:]):
        if tensor.dtype != result.dtype or not is_sound(tensor) or len(tensor.scale) > 1:
            continue
        if not _close(tensor.scale[0], result.scale[0], _TOLERANCE) or tensor.zero_point[0] != result.zero_point[0]:
            yield Found(rule=rule, tensor=tensor, reason=f"{_quantization(tensor)}, result {_quantization(result)}")


def _one_scale(place: Place) -> Iterator[Found]:
    if place.op.code not in OF_REAL_NUMBERS:
        return
    for index in dict.fromkeys((*place.op.inputs, *place.op.outputs)):
        tensor = place.graph.tensors[index]
        if tensor.dtype in QUANTIZED and not tensor.scale:
            yield Found(rule=MISSING_SCALE, tensor=tensor, reason="no scale")
    for tensor in place.outputs:
        if len(tensor.scale) > 1:
            yield Found(rule=RESULT_SCALES, tensor=tensor, reason=f"{len(tensor.scale)} scales, expected one")


def _fixed_scale(place: Place) -> Iterator[Found]:
    for tensor in place.outputs[:1]:
        fixed = _FIXED.get((place.op.code, tensor.dtype))
        if fixed is not None and is_sound(tensor):
            scale, zero = fixed
            if not _close(tensor.scale[0], scale, _FIXED_TOLERANCE) or tensor.zero_point[0] != zero:
                reason = f"{_quantization(tensor)}, expected scale {scale:g} and zero point {zero}"
                yield Found(rule=FIXED_SCALE, tensor=tensor, reason=reason)


def _multiplier(place: Place) -> Iterator[Found]:
    """The bound of `QuantizeMultiplierSmallerThanOneExp`, which ends the process above it.

    https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/add.cc
    """
    if place.op.code not in ("ADD", "SUB", "SQUARED_DIFFERENCE") or len(place.inputs) != 2 or not place.outputs:
        return
    result = place.outputs[0]
    if result.dtype not in ("INT8", "UINT8") or not all(is_sound(tensor) for tensor in (*place.inputs, result)):
        return
    twice = 2 * max(tensor.scale[0] for tensor in place.inputs)
    real = (twice**2 if place.op.code == "SQUARED_DIFFERENCE" else twice) / result.scale[0]
    shift = 14 if place.op.code == "SQUARED_DIFFERENCE" else 20
    if real >= 2**shift:
        yield Found(rule=MULTIPLIER, tensor=result, reason=f"the sum is rescaled by {real / 2**shift:g}")


def _close(value: float, expected: float, tolerance: float) -> bool:
    return abs(value - expected) <= tolerance * expected


def _quantization(tensor: Tensor) -> str:
    return f"scale {tensor.scale[0]:g} and zero point {tensor.zero_point[0]}"
