"""How many bytes the parameters of one op take on the Edge TPU.

Numbers lie in groups of four, and outputs are divided among 16 tiles: what does not fill a group or a tile is padded,
which is why a model's parameters take more than its file. The compiler also adds parameters of its own where data has
to change its place: it multiplies with matrices of zeros and ones. None of this is documented. It is deduced from
compiled models in public; each rule says in how many of their families it was seen.
"""

from collections.abc import Iterable

import numpy as np

from components.quantization.conversion.flatbuffer import Tensor
from components.targets._operation import Operation, elements
from components.targets.edge_tpu.generations import Generation

WITH_WEIGHTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_TILES = 16
_ALIGNMENT = 64
_GROUP = 4
# Per output channel: a bias, and two numbers more for a scale of its own.
_BIAS_BYTES, _SCALE_BYTES = 4, 8
_EIGHT_BITS = frozenset({"INT8", "UINT8"})
# Since compiler 16 a bias that is one number is part of the program, and SOFTMAX takes parameters.
_FIRST_COMPILER_OF_SINGLE_BIASES = (16, 0)
# The sums of SOFTMAX are taken by three matrices.
_MATRICES_OF_SOFTMAX = 3
# A vector of 270 numbers is put together by one matrix, one of 4,104 by nine.
_OUTPUTS_OF_MATRIX = 512


def weights_bytes(operation: Operation, generation: Generation) -> int:
    """Returns the bytes of constant weights and their bias: groups of inputs for padded outputs.

    Args:
      operation: One of `WITH_WEIGHTS`, its weights constant and of rank 2 or 4.
      generation: A bias of one number takes nothing since compiler 16.
    """
    weights = operation.operands[1]
    assert weights is not None
    if operation.code == "DEPTHWISE_CONV_2D":
        taps, outputs = elements(weights.shape[1:3]), weights.shape[3]
        single = operation.input is not None and operation.input.shape[-1:] == (1,)
        size = (_lanes(outputs) if single else _up(outputs, _GROUP)) * taps * _GROUP
        padded = _up(outputs, _GROUP)
    else:
        outputs = weights.shape[0]
        # A single output of a convolution cannot be divided: the tiles divide its positions.
        padded = _GROUP if outputs == 1 and operation.code == "CONV_2D" else _lanes(outputs)
        size = padded * elements(weights.shape[1:-1]) * _up(weights.shape[-1], _GROUP)
    per_output = _SCALE_BYTES if len(weights.scale) > 1 else 0
    if _has_bias(operation, outputs, generation):
        per_output += _BIAS_BYTES
    return _up(size + per_output * padded, _ALIGNMENT)


def _has_bias(operation: Operation, outputs: int, generation: Generation) -> bool:
    """Whether a bias is stored: there is one, and it is not one number on all tiles (4 families).

    A tile without an output has a zero.
    """
    bias = operation.operands[2] if len(operation.operands) > 2 else None
    if bias is None:
        return False
    stored = bias.constant
    if stored is None or bias.dtype != "INT32" or len(stored) % _BIAS_BYTES:
        return True
    if generation.compiler < _FIRST_COMPILER_OF_SINGLE_BIASES:
        return True
    return len(np.unique(np.append(np.frombuffer(stored, "<i4"), [0] * (outputs < _TILES)))) > 1


def softmax_bytes(operation: Operation, generation: Generation) -> int:
    """Returns the parameters of SOFTMAX: matrices for its sums if its classes do not fill groups (8 families).

    Of 2, 5 and 10 classes they are known, of 256, 1,000, 4,096 and 16,384 there are none.
    """
    classes = operation.input.shape[-1] if operation.input is not None and operation.input.shape else 0
    if classes % _GROUP == 0 or generation.compiler < _FIRST_COMPILER_OF_SINGLE_BIASES:
        return 0
    return _MATRICES_OF_SOFTMAX * _TILES * _up(classes, _GROUP)


def product_bytes(rows: int, columns: int) -> int:
    """Returns what a constant matrix takes that is multiplied with computed data (3 families, of one project).

    Each row is one position of the result, of a depth of 1 that is padded to a group; they have one bias.

    Args:
      rows: Rows of the matrix.
      columns: Its columns, the length of the computed rows.
    """
    positions = _up(rows, _GROUP if rows <= _TILES else _TILES)
    return _GROUP * positions * _up(columns, _GROUP) + _TILES * _BIAS_BYTES


def flattening_bytes(positions: int, depth: int) -> int | None:
    """Returns the matrices that put positions behind one another whose depth does not fill groups (5 families).

    A matrix has a bias, and `_OUTPUTS_OF_MATRIX` outputs at most.

    Args:
      positions: How many there are.
      depth: The depth of each.

    Returns:
      The bytes; None if that is not known.
    """
    outputs = positions * depth
    if outputs > _OUTPUTS_OF_MATRIX and depth < _GROUP:
        # Of a depth of 1 each tile holds a piece that is in order already; of 2 or 3 no such model is public.
        return flattening_bytes(_TILES, 1) if depth == 1 and positions % _TILES == 0 else None
    each = _up(-(-outputs // -(-outputs // _OUTPUTS_OF_MATRIX)), _TILES)
    size = 0
    for first in range(0, outputs, each):
        end = min(first + each, outputs)
        begin, last = (i // depth * _up(depth, _GROUP) + i % depth for i in (first, end - 1))
        moved = _up(last + 1, _GROUP) - begin // _GROUP * _GROUP
        size += _lanes(end - first) * (moved + _BIAS_BYTES)
    return size


def joining_bytes(depths: Iterable[int]) -> int:
    """Returns the matrix that puts vectors behind one another of which some do not fill groups (2 families).

    Args:
      depths: The depths of the vectors.
    """
    depths = tuple(depths)
    return _lanes(sum(depths)) * (sum(_up(depth, _GROUP) for depth in depths) + _BIAS_BYTES)


def data_bytes(operation: Operation) -> int:
    """Returns the bytes of constants that are calculated with like data.

    A single number is part of the program, unless it stands for data of its own shape.
    """
    return sum(_up(elements(t.shape), _ALIGNMENT) for t in _constants(operation) if not _is_broadcast(t, operation))


def has_single_number(operation: Operation) -> bool:
    """Whether a single number stands for data: of 9 models with one, 4 cache it or something else of its size."""
    return any(elements(t.shape) == 1 and not _is_broadcast(t, operation) for t in _constants(operation))


def _constants(operation: Operation) -> list[Tensor]:
    constants = (t for t in operation.operands if t is not None and t.constant is not None)
    return [t for t in constants if t.dtype in _EIGHT_BITS]


def _is_broadcast(constant: Tensor, operation: Operation) -> bool:
    """Whether a constant is one number for all data."""
    return elements(constant.shape) == 1 and (
        not constant.shape or constant.shape not in (t.shape for t in operation.data)
    )


def fills_groups(depth: int) -> bool:
    """Whether a depth is a multiple of a group: data of such a depth changes its place without a matrix."""
    return depth % _GROUP == 0


def _lanes(outputs: int) -> int:
    """Outputs padded so that each tile has 1, 2, 3 or a multiple of 4 of them."""
    each = -(-outputs // _TILES)
    return _TILES * (each if each < _GROUP else _up(each, _GROUP))


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
