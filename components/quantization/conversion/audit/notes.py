"""What breaks no rule and is worth to know."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from components.quantization.conversion.audit import numerics, scales
from components.quantization.conversion.audit.rules import RANGES, Found, Place, Rule, is_sound, weighted
from components.quantization.conversion.flatbuffer import Model, Subgraph, Tensor

_FEW_CODES = 0.1
_LARGE_BIAS = 2**28

DEAD_CHANNELS = Rule(
    name="dead-channels",
    kind="note",
    text="Output channels whose weights are all 0.",
    fix="remove these channels from the layer, or look why training switched them off",
)
FEW_CODES = Rule(
    name="few-codes",
    kind="note",
    text="Outputs that use less than 10 % of the integers of their type, whatever the input or for the given examples.",
    fix="give the output a narrower range: train longer, or calibrate with more examples",
)
LARGE_BIAS = Rule(
    name="large-bias",
    kind="note",
    text="An INT32 bias above 2**28, an eighth of what its type holds.",
    fix="look whether the ranges of input and weights are much smaller than the bias",
)
UNUSED = Rule(
    name="unused",
    kind="note",
    text="Op codes and constants that no op uses.",
    fix="nothing: they only make the file larger",
)
RULES = (DEAD_CHANNELS, FEW_CODES, LARGE_BIAS, UNUSED, *scales.NOTES, *numerics.NOTES)


def check(place: Place) -> Iterator[Found]:
    """Yields what is worth to know of an op."""
    yield from scales.check_uint8(place)
    yield from numerics.check_small_bias(place)
    sums = numerics.accumulated(place)
    for source, weights, bias, result in weighted(place):
        if sums is not None and sums.dead.any():
            channels = np.flatnonzero(sums.dead)
            reason = f"{len(channels)} of {len(sums.dead)} channels, the first is {channels[0]}"
            yield Found(rule=DEAD_CHANNELS, tensor=weights, reason=reason)
        if sums is not None:
            yield from _reachable_codes(source, weights, result, sums)
        extremes = place.once(numerics.extreme_values, bias) if bias is not None and bias.dtype == "INT32" else None
        if bias is not None and extremes is not None:
            largest = max(abs(value) for value in extremes)
            if largest > _LARGE_BIAS:
                yield Found(rule=LARGE_BIAS, tensor=bias, reason=f"value of magnitude {largest}")


def _reachable_codes(source: Tensor, weights: Tensor, result: Tensor, sums: numerics.Sums) -> Iterator[Found]:
    """Bounds the integers that an output can take, for any input of the op."""
    limits = RANGES.get(result.dtype)
    if limits is None or not (is_sound(result) and is_sound(weights)):
        return
    multiplier = source.scale[0] * np.array(weights.scale) / result.scale[0]
    if len(multiplier) not in (1, len(sums.low)):
        return
    zero = result.zero_point[0]
    ends = (np.clip(np.round(end * multiplier) + zero, *limits) for end in (sums.low, sums.high))
    low, high = (int(end) for end in (next(ends).min(), next(ends).max()))
    yield from _few(result, high - low + 1, f"can only be within {low}..{high}")


def _few(tensor: Tensor, used: int, how: str) -> Iterator[Found]:
    low, high = RANGES[tensor.dtype]
    share = used / (high - low + 1)
    if share < _FEW_CODES:
        yield Found(rule=FEW_CODES, tensor=tensor, reason=f"{how}: {share:.1%} of its integers")


def measured(graph: Subgraph, outputs: Mapping[str, npt.NDArray[np.generic]]) -> Iterator[Found]:
    """Yields outputs of the model that use few of their integers.

    Args:
      graph: The main subgraph.
      outputs: Integers that the model computed, by the name of the output's tensor.
    """
    for tensor in (graph.tensors[i] for i in graph.outputs):
        codes = outputs.get(tensor.name)
        if codes is not None and tensor.dtype in RANGES:
            used = len(np.unique(codes))
            yield from _few(tensor, used, f"took {used} values for the examples")


def unused(tensor: Tensor) -> Iterator[Found]:
    """Yields whether a tensor that no op uses is a constant."""
    if tensor.constant is not None:
        yield Found(rule=UNUSED, tensor=tensor, reason=f"constant of {len(tensor.constant)} bytes")


def unused_codes(model: Model) -> Iterator[Found]:
    """Yields the op codes that a model names and no op is of."""
    used = {(op.code, op.custom_code, op.version) for graph in model.subgraphs for op in graph.ops}
    named = dict.fromkeys((code.code, code.custom_code, code.version) for code in model.codes)
    for code, custom, version in named:
        if (code, custom, version) not in used:
            yield Found(rule=UNUSED, tensor=None, reason=f"op code {custom or code} version {version}")
