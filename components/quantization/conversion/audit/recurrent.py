"""Rules of integer LSTMs: kernels take one scale of each weight, and have the scales of what is inside built in.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/unidirectional_sequence_lstm.cc
(PopulateQuantizedLstmParams8x8_16, PopulatePrecomputedZPTimesWeightsWithBias).
"""

import math
from collections.abc import Iterator

from components.quantization.conversion import lstm_operands as lstm
from components.quantization.conversion.audit import numerics
from components.quantization.conversion.audit.rules import QUANTIZED, Found, Place, Rule, is_sound
from components.quantization.conversion.flatbuffer import Tensor

# Gates and the cell's scale, unless there is layer normalization: int16 with 12 bits, and at least 9, behind the point.
_GATE_STEP = 2.0**-12
_LARGEST_CELL_SCALE = 2.0**-9
_TOLERANCE = 1e-5
_ONE_SCALE = -1

HIDDEN = Rule(
    name="lstm-hidden",
    kind="numeric",
    text="An INT8 LSTM has five intermediate tensors, the last with the scale of its hidden values.",
    fix="convert the model again with the TensorFlow of this project",
)
CELL = Rule(
    name="lstm-cell",
    kind="numeric",
    text="The cell state of an INT8 LSTM is INT16, its scale a power of 2, at most 2**-9.",
    fix="calibrate the LSTM again: its cell state needs a range of a power of 2, up to 64",
)
STATE = Rule(
    name="lstm-state",
    kind="numeric",
    text="Output, output state and, without projection, hidden values of an INT8 LSTM have one scale and zero point.",
    fix="calibrate the LSTM again, its output and its state with one range",
)
RULES = (HIDDEN, CELL, STATE)


def check(place: Place) -> Iterator[Found]:
    """Yields what breaks the rules of an op."""
    source, state = place.operand(lstm.SOURCE), place.operand(lstm.STATE)
    known = place.op.code in (lstm.SEQUENCE_LSTM, "LSTM") and len(place.op.operands) in lstm.COUNTS
    if not known or source is None or source.dtype != "INT8" or state is None or not place.outputs:
        return
    for product in _products(place, source, state):
        if product.weights.constant is not None and product.weights.dtype in QUANTIZED:
            yield from numerics.of_weights(place, product.weights, _ONE_SCALE)
            yield from numerics.of_bias(place, product)
            if not any(place.operand(position) for position in lstm.NORMALIZATION):
                yield from numerics.of_bias_scale(product, _GATE_STEP)
            yield from numerics.of_sums(place, product)
    yield from _cell(place.operand(lstm.CELL))
    yield from _states(place, state)


def _products(place: Place, source: Tensor, state: Tensor) -> Iterator[numerics.Product]:
    hidden = _hidden(place) or state
    terms = [(source, gate, place.operand(bias)) for gate, bias in zip(lstm.GATES, lstm.BIASES, strict=True)]
    terms += [(state, recurrent, None) for recurrent in lstm.RECURRENT]
    terms.append((hidden, lstm.PROJECTION, place.operand(lstm.PROJECTION_BIAS)))
    for factor, position, bias in terms:
        weights = place.operand(position)
        if weights is not None:
            yield numerics.Product(source=factor, weights=weights, bias=bias, axis=0)


def _cell(cell: Tensor | None) -> Iterator[Found]:
    if cell is None or cell.dtype != "INT16" or len(cell.scale) != 1:
        kind = "not given" if cell is None else f"{cell.dtype} with {len(cell.scale)} scales"
        yield Found(rule=CELL, tensor=cell, reason=f"cell state is {kind}")
    elif is_sound(cell) and (math.frexp(cell.scale[0])[0] != 0.5 or cell.scale[0] > _LARGEST_CELL_SCALE):
        yield Found(rule=CELL, tensor=cell, reason=f"scale {cell.scale[0]:g}")


def _states(place: Place, state: Tensor) -> Iterator[Found]:
    hidden, result = _hidden(place), place.outputs[0]
    if hidden is None:
        reason = f"{len(place.op.intermediates)} intermediate tensors"
        yield Found(rule=HIDDEN, tensor=None, reason=f"{reason}, expected {lstm.INTERMEDIATES} and a scale of the last")
    same = [result] if hidden is None or place.operand(lstm.PROJECTION) is not None else [result, hidden]
    for tensor in same:
        if not (is_sound(tensor) and is_sound(state)):
            continue  # offenders of other rules
        one = math.isclose(tensor.scale[0], state.scale[0], rel_tol=_TOLERANCE)
        if not one or tensor.zero_point[0] != state.zero_point[0]:
            got, expected = (f"scale {t.scale[0]:g} and zero point {t.zero_point[0]}" for t in (tensor, state))
            yield Found(rule=STATE, tensor=tensor, reason=f"{got}, output state {expected}")


def _hidden(place: Place) -> Tensor | None:
    """The tensor with the scale of hidden values, if it has one."""
    intermediates = place.op.intermediates
    hidden = place.graph.tensors[intermediates[-1]] if len(intermediates) == lstm.INTERMEDIATES else None
    return hidden if hidden is not None and is_sound(hidden) else None
