"""How many bytes the parameters of one op take on the Edge TPU: weights, biases, and constants that are data.

Numbers lie in groups of four, and outputs are divided among 16 tiles: what does not fill a group or a tile is padded,
which is why a model's parameters take more than its file. None of this is documented. It is deduced from compiled
models in public; each rule says in how many of their families it was seen. What the compiler adds where data changes
its place is in `data_movement`.
"""

import numpy as np

from components.quantization.conversion.flatbuffer import Tensor
from components.targets._operation import Operation, elements
from components.targets.edge_tpu.data_movement import ALIGNMENT, BIAS_BYTES, GROUP, TILES, lanes, up
from components.targets.edge_tpu.generations import Generation

WITH_WEIGHTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
ELEMENT_WISE = frozenset({"ADD", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"})
# Per output channel of a scale of its own, beside the bias.
_SCALE_BYTES = 8
_EIGHT_BITS = frozenset({"INT8", "UINT8"})
# Since compiler 16 a bias that is one number is part of the program, and SOFTMAX takes parameters.
_FIRST_COMPILER_OF_SINGLE_BIASES = (16, 0)
# The sums of SOFTMAX are taken by three matrices.
_MATRICES_OF_SOFTMAX = 3


def weights_bytes(operation: Operation, generation: Generation, spread: int = 0) -> int:
    """Returns the bytes of constant weights and their bias: groups of inputs for padded outputs.

    Args:
      operation: One of `WITH_WEIGHTS`, its weights constant and of rank 2 or 4.
      generation: A bias of one number takes nothing since compiler 16.
      spread: Into positions of which depth, padded to groups, a CONV_2D divides its outputs; 0 if it does not
        (3 families).
    """
    weights = operation.operands[1]
    assert weights is not None
    if operation.code == "DEPTHWISE_CONV_2D":
        taps, outputs = elements(weights.shape[1:3]), weights.shape[3]
        single = operation.input is not None and operation.input.shape[-1:] == (1,)
        size = (lanes(outputs) if single else up(outputs, GROUP)) * taps * GROUP
        padded = up(outputs, GROUP)
    else:
        outputs = weights.shape[0]
        # A single output of a convolution cannot be divided: the tiles divide its positions.
        undivided = outputs == 1 and operation.code == "CONV_2D" and not spread
        padded = GROUP if undivided else lanes(outputs // spread * up(spread, GROUP) if spread else outputs)
        size = padded * elements(weights.shape[1:-1]) * up(weights.shape[-1], GROUP)
    per_output = _SCALE_BYTES if len(weights.scale) > 1 else 0
    if _has_bias(operation, outputs, generation):
        per_output += BIAS_BYTES
    return up(size + per_output * padded, ALIGNMENT)


def _has_bias(operation: Operation, outputs: int, generation: Generation) -> bool:
    """Whether a bias is stored: there is one, and it is not one number on all tiles (4 families).

    A tile without an output has a zero.
    """
    bias = operation.operands[2] if len(operation.operands) > 2 else None
    if bias is None:
        return False
    stored = bias.constant
    if stored is None or bias.dtype != "INT32" or len(stored) % BIAS_BYTES:
        return True
    if generation.compiler < _FIRST_COMPILER_OF_SINGLE_BIASES:
        return True
    return len(np.unique(np.append(np.frombuffer(stored, "<i4"), [0] * (outputs < TILES)))) > 1


def softmax_bytes(operation: Operation, generation: Generation) -> int:
    """Returns the parameters of SOFTMAX: matrices for its sums if its classes do not fill groups (8 families).

    Of 2, 5 and 10 classes they are known, of 256, 1,000, 4,096 and 16,384 there are none.
    """
    classes = operation.input.shape[-1] if operation.input is not None and operation.input.shape else 0
    if classes % GROUP == 0 or generation.compiler < _FIRST_COMPILER_OF_SINGLE_BIASES:
        return 0
    return _MATRICES_OF_SOFTMAX * TILES * up(classes, GROUP)


def data_bytes(operation: Operation) -> int:
    """Returns the bytes of constants that are calculated with like data.

    A single number is part of the program, unless it stands for data of its own shape.
    """
    return sum(_data_bytes(t, operation) for t in _constants(operation) if not _is_broadcast(t, operation))


def has_single_number(operation: Operation) -> bool:
    """Whether an element-wise op has a single number that stands for data: of 4 models with one, 3 cache it."""
    single = [t for t in _constants(operation) if elements(t.shape) == 1 and not _is_broadcast(t, operation)]
    return operation.code in ELEMENT_WISE and bool(single)


def _data_bytes(constant: Tensor, operation: Operation) -> int:
    """A number for each channel is copied to all tiles, unless all are one (4 families); else there is one copy.

    Where constant and data have both to be repeated to the result's shape, it is stored as that (1 family).
    """
    count, output = elements(constant.shape), operation.output
    if operation.code not in ELEMENT_WISE or output is None or not output.shape or constant.shape == output.shape:
        return up(count, ALIGNMENT)
    if all(t.shape != output.shape for t in operation.operands if t is not None and t.constant is None):
        return up(elements(output.shape), ALIGNMENT)
    if count != output.shape[-1]:
        return up(count, ALIGNMENT)
    content = bytes(constant.constant or b"")
    return 0 if content.count(content[:1]) == len(content) else up(TILES * up(count, GROUP), ALIGNMENT)


def _constants(operation: Operation) -> list[Tensor]:
    constants = (t for t in operation.operands if t is not None and t.constant is not None)
    return [t for t in constants if t.dtype in _EIGHT_BITS]


def _is_broadcast(constant: Tensor, operation: Operation) -> bool:
    """Whether a constant is one number for all data."""
    return elements(constant.shape) == 1 and (
        not constant.shape or constant.shape not in (t.shape for t in operation.data)
    )
