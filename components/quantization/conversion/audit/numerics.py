"""Rules of weights, biases and accumulators."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion.audit.rules import (
    CHANNEL_AXIS,
    QUANTIZED,
    RANGES,
    Found,
    Place,
    Rule,
    is_sound,
    weighted,
)
from components.quantization.conversion.flatbuffer import Tensor

# The converter computes the product and the largest bias in float32; kernels of one scale per tensor allow more.
_BIAS_TOLERANCE = 1e-3
# The converter widens the scale of weights so that no bias is larger:
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/compiler/mlir/lite/quantization/quantization_utils.cc
_LARGEST_BIAS = 2**30
# Accumulators: int32 beside 8-bit activations; beside 16-bit ones int64, of which rescaling takes 48 bits:
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/internal/common.h
_ACCUMULATOR_BITS = {"INT8": 31, "UINT8": 31, "INT16": 47}
# Symmetric weights, without the lowest value.
_WEIGHT_LIMITS = {"INT8": 127, "INT4": 7}

WEIGHT_ZERO_POINT = Rule(
    name="weight-zero-point",
    kind="numeric",
    text="INT8 and INT4 weights have zero point 0; UINT8 weights may have any.",
    fix="quantize weights symmetrically",
)
WEIGHT_RANGE = Rule(
    name="weight-range",
    kind="numeric",
    text="INT8 weights are within -127..127, INT4 weights within -7..7.",
    fix="quantize weights with the narrow range",
)
SCALE_AXIS = Rule(
    name="scale-axis",
    kind="numeric",
    text="Several scales of weights are of their output channels; weights of LSTMs have one.",
    fix="quantize weights per output channel, or with one scale",
)
BIAS_TYPE = Rule(
    name="bias-type",
    kind="numeric",
    text="A bias is INT32, or INT64 (INT32 too) beside 16-bit activations.",
    fix="convert the model again with the converter's default bias type",
)
BIAS_SCALE = Rule(
    name="bias-scale",
    kind="numeric",
    text="The scale of a bias is the input's times the weights', per channel; else outputs change by half an integer.",
    fix="quantize the bias again, with that scale",
)
SMALL_BIAS = Rule(
    name="small-bias-scale",
    kind="note",
    text="Biases of another scale than the input's times the weights', whose error is below half an output integer.",
    fix="nothing: the converter wrote one bias for several ops, and outputs hardly change",
)
BIAS_ZERO_POINT = Rule(
    name="bias-zero-point", kind="numeric", text="The zero point of a bias is 0.", fix=BIAS_SCALE.fix
)
BIAS_RANGE = Rule(
    name="bias-range",
    kind="numeric",
    text="An INT32 bias is at most 2**30, half of what its type holds.",
    fix="give the input or the weights a wider range: the bias is too large for their scales",
)
ACCUMULATOR = Rule(
    name="accumulator",
    kind="numeric",
    text="No input makes a sum of products and bias overflow: 2**31 for 8-bit activations, 2**47 for 16-bit ones.",
    fix="split the layer, or give its weights or its input a wider range",
)
RULES = (
    *(WEIGHT_ZERO_POINT, WEIGHT_RANGE, SCALE_AXIS, BIAS_TYPE, BIAS_SCALE, BIAS_ZERO_POINT, BIAS_RANGE),
    ACCUMULATOR,
)
NOTES = (SMALL_BIAS,)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """An input times weights, plus a bias if there is one; `axis` is the dimension of weights of output channels."""

    source: Tensor
    weights: Tensor
    bias: Tensor | None
    axis: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """Bounds of what an op with weights accumulates, per output channel, for any input.

    Attributes:
      low: Float64 of shape (channels,): the least, with bias.
      high: As `low`, the most.
      worst: As `low`, the largest partial sum in any order of adding, without its sign.
      dead: Bool of shape (channels,): all weights are 0.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    worst: npt.NDArray[np.float64]
    dead: npt.NDArray[np.bool_]


def check(place: Place) -> Iterator[Found]:
    """Yields what breaks the rules of an op."""
    for source, weights, bias, result in weighted(place):
        if weights.constant is not None and weights.dtype in QUANTIZED and source.dtype in QUANTIZED:
            product = Product(source=source, weights=weights, bias=bias, axis=CHANNEL_AXIS[place.op.code])
            yield from of_weights(place, weights, product.axis)
            yield from of_bias(place, product)
            step = result.scale[0] if is_sound(result) else 0.0
            yield from (f for f in of_bias_scale(product, step) if f.rule == BIAS_SCALE)
            yield from of_sums(place, product)


def accumulated(place: Place) -> Sums | None:
    """Returns what an op with constant weights accumulates; None where it cannot be told."""
    for source, weights, bias, _ in weighted(place):
        return _sums(place, Product(source=source, weights=weights, bias=bias, axis=CHANNEL_AXIS[place.op.code]))
    return None


def of_sums(place: Place, product: Product) -> Iterator[Found]:
    """Yields whether sums can be larger than their type."""
    sums, bits = _sums(place, product), _ACCUMULATOR_BITS.get(product.source.dtype)
    if product.bias is not None and product.bias.dtype == "INT32":
        bits = 31
    if sums is not None and bits is not None and sums.worst.max(initial=0) >= 2**bits:
        reason = f"sums reach {sums.worst.max():.4g} in channel {sums.worst.argmax()}, 2**{bits} overflows"
        yield Found(rule=ACCUMULATOR, tensor=product.weights, reason=reason)


def _sums(place: Place, product: Product) -> Sums | None:
    source = product.source
    limits, signed = RANGES.get(source.dtype), place.once(_signed_sums, product.weights, product.axis)
    if limits is None or signed is None or not is_sound(source):
        return None
    positive, negative = signed
    low, high = (limit - source.zero_point[0] for limit in limits)
    offset = _offsets(product.bias, len(positive))
    # Padding leaves products out, as if the input were 0, which lies between the limits.
    most, least = positive * max(high, 0) - negative * min(low, 0), positive * min(low, 0) - negative * max(high, 0)
    return Sums(
        low=least + offset,
        high=most + offset,
        worst=np.maximum(most + abs(offset), abs(offset) - least),
        dead=(positive + negative) == 0,
    )


def constant(tensor: Tensor) -> npt.NDArray[Any] | None:
    """Returns the values of a constant whose size fits its shape; None otherwise."""
    if tensor.constant is None or tensor.is_sparse or not fits(tensor):
        return None
    return tensor.values


def extreme_values(tensor: Tensor) -> tuple[int, int] | None:
    """Returns the least and the greatest integer of a constant; None if it has none."""
    values = constant(tensor)
    return None if values is None or not values.size else (int(values.min()), int(values.max()))


def fits(tensor: Tensor) -> bool:
    """Whether a constant has as many bytes as its shape and type ask for."""
    bits = {"INT4": 4, "INT8": 8, "UINT8": 8, "BOOL": 8, "INT16": 16, "FLOAT16": 16, "BFLOAT16": 16, "INT64": 64}
    width = {**bits, "INT32": 32, "UINT32": 32, "FLOAT32": 32, "FLOAT64": 64, "UINT64": 64}.get(tensor.dtype)
    if tensor.constant is None or width is None or tensor.is_sparse:
        return True
    if min(tensor.shape, default=0) < 0:
        return False
    return len(tensor.constant) == (math.prod(tensor.shape) * width + 7) // 8


def _signed_sums(weights: Tensor, axis: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Sums of positive and of negative weights of each channel; a few channels at a time, to keep memory low."""
    values = constant(weights)
    if values is None or values.size == 0 or axis >= values.ndim or weights.dtype not in QUANTIZED:
        return None
    rows, zero = np.moveaxis(values, axis, 0), weights.zero_point[0] if len(weights.zero_point) == 1 else 0
    zero = zero if abs(zero) < 2**15 else 0  # an offender of another rule
    rows = rows.reshape(len(rows), -1)
    positive, negative = np.zeros(len(rows)), np.zeros(len(rows))
    step = max(1, 2**18 // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.int32) - zero
        magnitudes, sums = np.abs(block).sum(1, dtype=np.int64), block.sum(1, dtype=np.int64)
        positive[start : start + step] = (magnitudes + sums) // 2
        negative[start : start + step] = (magnitudes - sums) // 2
    return positive, negative


def _offsets(bias: Tensor | None, channels: int) -> npt.NDArray[np.float64]:
    values = constant(bias) if bias is not None and bias.dtype in ("INT32", "INT64") else None
    if values is None or values.size != channels:
        return np.zeros(channels)
    return values.ravel().astype(np.float64)


def of_weights(place: Place, weights: Tensor, axis: int) -> Iterator[Found]:
    """Yields what is wrong with constant weights; the axis is that of output channels, -1 if there may be one scale."""
    limit = _WEIGHT_LIMITS.get(weights.dtype)
    if limit is not None and any(weights.zero_point):
        zero = next(zero for zero in weights.zero_point if zero)
        yield Found(rule=WEIGHT_ZERO_POINT, tensor=weights, reason=f"zero point {zero}")
    extremes = place.once(extreme_values, weights)
    if limit is not None and extremes is not None and extremes[0] < -limit:
        reason = f"value {extremes[0]}, expected -{limit}..{limit}"
        yield Found(rule=WEIGHT_RANGE, tensor=weights, reason=reason)
    if len(weights.scale) > 1 and weights.quantized_dimension != axis:
        expected = "one" if axis < 0 else f"them along {axis}"
        reason = f"{len(weights.scale)} scales along dimension {weights.quantized_dimension}, expected {expected}"
        yield Found(rule=SCALE_AXIS, tensor=weights, reason=reason)


def of_bias(place: Place, product: Product) -> Iterator[Found]:
    """Yields what is wrong with a bias, but for its scale."""
    bias, source = product.bias, product.source
    if bias is None:
        return
    if bias.dtype not in (("INT32", "INT64") if source.dtype == "INT16" else ("INT32",)):
        yield Found(rule=BIAS_TYPE, tensor=bias, reason=f"{bias.dtype} beside an input of {source.dtype}")
        return
    if any(bias.zero_point):
        yield Found(rule=BIAS_ZERO_POINT, tensor=bias, reason=f"zero point {max(bias.zero_point, key=abs)}")
    extremes = place.once(extreme_values, bias)
    if extremes is not None and bias.dtype == "INT32":
        largest = max(abs(value) for value in extremes)
        if largest > _LARGEST_BIAS * (1 + _BIAS_TOLERANCE):
            yield Found(rule=BIAS_RANGE, tensor=bias, reason=f"value of magnitude {largest}, expected at most 2**30")


def check_small_bias(place: Place) -> Iterator[Found]:
    """Yields biases of another scale whose error is less than half an integer of the output."""
    for source, weights, bias, result in weighted(place):
        if weights.constant is not None:
            product = Product(source=source, weights=weights, bias=bias, axis=CHANNEL_AXIS[place.op.code])
            step = result.scale[0] if is_sound(result) else 0.0
            yield from (f for f in of_bias_scale(product, step) if f.rule == SMALL_BIAS)


def of_bias_scale(product: Product, step: float) -> Iterator[Found]:
    """Yields whether the scale of a bias is wrong: a note if its error is below half a step of what is computed."""
    source, weights, bias = product.source, product.weights, product.bias
    if bias is None or not (is_sound(source) and is_sound(weights)) or not all(0 <= s < math.inf for s in bias.scale):
        return
    expected = source.scale[0] * np.array(weights.scale)
    if len(bias.scale) not in (1, len(expected)):
        reason = f"{len(bias.scale)} scales beside {len(expected)} of the weights"
        yield Found(rule=BIAS_SCALE, tensor=bias, reason=reason)
        return
    differences = np.abs(np.array(bias.scale) - expected)
    if (differences <= _BIAS_TOLERANCE * expected).all():
        return
    values = constant(bias)
    magnitudes = np.abs(values.ravel().astype(np.float64)) if values is not None and values.size else np.ones(1)
    if len(magnitudes) != len(differences):
        magnitudes = magnitudes.max(keepdims=True)
    errors = differences * magnitudes * (differences > _BIAS_TOLERANCE * expected)
    if not errors.any():
        return  # the converter shares a bias of zeros between ops, with the scale of one
    worst = int(errors.argmax())
    got, wanted = bias.scale[worst % len(bias.scale)], expected[worst]
    reason = f"scale {got:g} in channel {worst}, expected {wanted:g} (input's times weights')"
    yield Found(rule=BIAS_SCALE if errors[worst] >= step / 2 else SMALL_BIAS, tensor=bias, reason=reason)
