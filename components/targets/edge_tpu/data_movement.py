"""How many bytes the matrices take that move data on the Edge TPU.

Data lies in positions, of a batch and an image, of a depth, the depth in groups of four. Where a depth becomes
positions, or positions a depth, the compiler multiplies with matrices of zeros and ones. None of this is documented: it
is deduced from the sizes of compiled models in public, and from one of their files that can be read. Each rule says in
how many families of models it was seen.
"""

from collections.abc import Iterable, Sequence

GROUP = 4
ALIGNMENT = 64
TILES = 16
BIAS_BYTES = 4
# A vector of 270 numbers is put together by one matrix, one of 4,104 by nine: anything from 480 on fits what is known.
_OUTPUTS_OF_MATRIX = 512
# The positions of a batch become a depth in pieces of that many: 64 are 2 x 32, 256 are 8 x 32, 300 are 10 x 30. Up to
# 49 would do as well: no other batches are known.
_LONGEST_PIECE = 32


def up(size: int, multiple: int) -> int:
    """Returns a size rounded up to a multiple."""
    return -(-size // multiple) * multiple


def lanes(outputs: int) -> int:
    """Returns outputs padded so that each tile has 1, 2, 3 or a multiple of 4 of them."""
    each = -(-outputs // TILES)
    return TILES * (each if each < GROUP else up(each, GROUP))


def fills_groups(depth: int) -> bool:
    """Whether a depth is a multiple of a group: data of such a depth is put behind one another without a matrix."""
    return depth % GROUP == 0


def positions_bytes(rows: int, columns: int) -> int:
    """Returns a matrix that makes each of its rows a position of a depth of 1, padded to a group (4 families).

    Args:
      rows: Its rows.
      columns: Its columns, the depth that it reads.
    """
    padded = up(rows, GROUP if rows <= TILES else TILES)
    return up(GROUP * padded * up(columns, GROUP), ALIGNMENT)


def narrow_bytes(outputs: int, inputs: int) -> int:
    """Returns a matrix without bias: up to four outputs are not divided among the tiles, which divide positions then.

    Args:
      outputs: Its outputs.
      inputs: Bytes that it reads, padded to groups.
    """
    return up((GROUP if outputs <= GROUP else lanes(outputs)) * inputs, ALIGNMENT)


def gathering_bytes(positions: int) -> int:
    """Returns the matrix that makes positions of a depth of 1 one depth (4 families, and read in a file).

    Args:
      positions: How many there are.
    """
    return narrow_bytes(positions, positions * GROUP)


def spreading_bytes(depth: int) -> int:
    """Returns the matrix that makes a depth positions of a depth of 1 (4 families, and read in a file).

    A large depth is written out and read again, for which one piece of parameters suffices: so 128, 144, 256 and 300.

    Args:
      depth: The depth.
    """
    if not spreads_by_matrix(depth):
        return ALIGNMENT
    return lanes(depth * GROUP) * (up(depth, GROUP) + BIAS_BYTES)


def spreads_by_matrix(depth: int) -> bool:
    """Whether a depth becomes positions by a matrix, which has a group of outputs for each."""
    return depth * GROUP < _OUTPUTS_OF_MATRIX


def swapping_bytes(size: int) -> int:
    """Returns the matrix that swaps two dimensions of positions (4 families).

    Args:
      size: The outer dimension.
    """
    return positions_bytes(size, size * GROUP)


def batch_bytes(batch: int) -> int | None:
    """Returns the matrices that make the positions of a batch a depth, of a product of a constant matrix (3 families).

    Args:
      batch: How many there are.

    Returns:
      The bytes; None if they are not known.
    """
    piece = max(size for size in range(1, _LONGEST_PIECE + 1) if batch % size == 0)
    outer = batch // piece
    swapped = swapping_bytes(outer) if outer > 1 else 0
    joined = flattening_bytes(outer, piece)
    return None if joined is None else swapped + gathering_bytes(piece) + joined


def transposing_bytes(shape: Sequence[int], order: Sequence[int], spread: bool = False) -> int | None:
    """Returns the matrices of a TRANSPOSE (6 families).

    The old depth becomes positions of a depth of 1, two dimensions of positions are swapped, and the new depth is
    gathered; whichever of these is needed.

    Args:
      shape: Of the data before.
      order: Which dimension each new one was.
      spread: Whether the data's maker has left its depth as positions already.

    Returns:
      The bytes; None if they are not known.

    >>> transposing_bytes((1, 20, 20, 144), (0, 3, 1, 2)) // 64, transposing_bytes((15, 64), (1, 0)) // 64
    (201, 287)
    """
    rank = len(shape)
    if sorted(order) != list(range(rank)) or not rank or min(shape) < 1:
        return None
    last, source = order[-1], rank - 1
    moves_depth = last != source and max(shape[last], shape[source]) > 1
    left = [axis for axis in order[:-1] if shape[axis] > 1]
    before = sorted(left)
    size = 0
    if moves_depth:
        size += spreading_bytes(shape[source]) if shape[source] > 1 and not spread else 0
        size += gathering_bytes(shape[last]) if shape[last] > 1 else 0
    if left == before:
        return size
    return size + swapping_bytes(shape[before[0]]) if len(left) == 2 else None


def flattening_bytes(positions: int, depth: int) -> int | None:
    """Returns the matrices that put positions behind one another whose depth does not fill groups (7 families).

    A matrix has a bias, and `_OUTPUTS_OF_MATRIX` outputs at most (1 family).

    Args:
      positions: How many there are.
      depth: The depth of each.

    Returns:
      The bytes, 0 if the depth fills groups; None if they are not known.
    """
    outputs = positions * depth
    if fills_groups(depth) or positions == 1:
        return 0
    if outputs > _OUTPUTS_OF_MATRIX and depth < GROUP:
        # Of a depth of 1 each tile holds a piece that is in order already; of 2 or 3 no such model is public.
        return flattening_bytes(TILES, 1) if depth == 1 and positions % TILES == 0 else None
    each = up(-(-outputs // -(-outputs // _OUTPUTS_OF_MATRIX)), TILES)
    size = 0
    for first in range(0, outputs, each):
        end = min(first + each, outputs)
        begin, last = (i // depth * up(depth, GROUP) + i % depth for i in (first, end - 1))
        size += lanes(end - first) * (_words(begin, last) + BIAS_BYTES)
    return size


def joining_bytes(depths: Iterable[int]) -> int:
    """Returns the matrix that puts vectors behind one another of which some do not fill groups (2 families).

    Args:
      depths: The depths of the vectors.
    """
    depths = tuple(depths)
    return lanes(sum(depths)) * (sum(up(depth, GROUP) for depth in depths) + BIAS_BYTES)


def slicing_bytes(begin: int, depth: int) -> int:
    """Returns the matrix of a slice of a depth that does not begin with a group (1 family).

    Args:
      begin: The first number of the slice.
      depth: How many it has.
    """
    return 0 if fills_groups(begin) else lanes(depth) * (_words(begin, begin + depth - 1) + BIAS_BYTES)


def padding_bytes(depth: int, padded: int) -> int:
    """Returns the matrix of a PAD of a depth (2 families).

    Args:
      depth: The depth before.
      padded: The depth after.
    """
    return lanes(padded) * (up(depth, GROUP) + BIAS_BYTES)


def averaging_bytes(depth: int) -> int:
    """Returns the matrix of a MEAN over a depth, and its bias (1 family).

    Args:
      depth: The depth.
    """
    return narrow_bytes(1, up(depth, GROUP)) + TILES * BIAS_BYTES


def _words(first: int, last: int) -> int:
    """Bytes of the groups from that of the first number to that of the last."""
    return up(last + 1, GROUP) - first // GROUP * GROUP
