"""What is around an op in the Edge TPU's part of a model, as far as its parameters depend on that."""

import collections
from collections.abc import Sequence

from components.quantization.conversion.flatbuffer import Tensor
from components.targets._operation import Operation, elements
from components.targets.edge_tpu.data_movement import fills_groups, spreads_by_matrix

# They leave a product in its order if they keep its size and its depth (1 family).
_KEEPING = frozenset({"RESHAPE", "SUM"})
_LONGEST_CHAIN = 8  # of them: two are known


class Neighbours:
    """Who makes and who reads each tensor.

    Attributes:
      computed: Tensors that the chip computes: others come from outside, and lie in the order of their numbers.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        """Looks at the mapped ops, in their order."""
        self.computed: set[int] = set()
        self._makers: dict[int, Operation] = {}
        self._readers: dict[int, list[Operation]] = collections.defaultdict(list)
        products: dict[object, list[Operation]] = collections.defaultdict(list)
        for operation in operations:
            # A QUANTIZE of what comes from outside leaves it in its order.
            if operation.code != "QUANTIZE" or not self.computed.isdisjoint(operation.op.inputs):
                self.computed.update(operation.op.outputs)
            self._makers.update(dict.fromkeys(operation.op.outputs, operation))
            for index in set(operation.op.inputs):
                self._readers[index].append(operation)
            if _is_product(operation):
                products[_shapes(operation)].append(operation)
        self._positions = {
            product.op.index: position
            for alike in products.values()
            if len({one.op.operands[0] for one in alike}) == 1
            for position, product in enumerate(alike)
        }
        found = {product.op.index: self._returning(product) for alike in products.values() for product in alike}
        self._transposes = {index: transpose for index, transpose in found.items() if transpose is not None}
        self._returning_ops = {transpose.op.index for transpose in self._transposes.values()}

    def position_among_equals(self, product: Operation) -> int:
        """Returns how many products of the same shapes are before one; 0 if not all of them are of the same matrix."""
        return self._positions.get(product.op.index, 0)

    def is_read_densely(self, operation: Operation) -> bool:
        """Whether a FULLY_CONNECTED reads what an op makes (1 family)."""
        readers = [reader for index in operation.op.outputs for reader in self._readers[index]]
        return any(reader.code == "FULLY_CONNECTED" for reader in readers)

    def spread(self, operation: Operation) -> int:
        """Returns into positions of which depth a convolution divides its own, since its only reader wants it so.

        Returns:
          The depth, 0 if it does not divide it.
        """
        output = operation.output
        readers = self._readers[output.index] if output is not None else []
        if operation.code != "CONV_2D" or output is None or not output.shape or len(readers) != 1:
            return 0
        (reader,) = readers
        depth, wanted = output.shape[-1], 0
        if reader.code == "TRANSPOSE" and (order := reader.integers(1)):
            wanted = int(order[-1] != len(output.shape) - 1)
        elif reader.code == "RESHAPE" and reader.output is not None and reader.output.shape:
            wanted = reader.output.shape[-1]
        divides = 0 < wanted < depth and depth % wanted == 0 and not fills_groups(wanted)
        return wanted if divides and spreads_by_matrix(depth // wanted) else 0

    def is_spread(self, tensor: Tensor) -> bool:
        """Whether a convolution makes a tensor, and divides its depth."""
        maker = self._makers.get(tensor.index)
        return maker is not None and self.spread(maker) > 0

    def returned(self, product: Operation) -> Tensor | None:
        """Returns the result of the TRANSPOSE that gives a product the order in which it is computed; None without."""
        transpose = self._transposes.get(product.op.index)
        return transpose.output if transpose is not None else None

    def returns(self, transpose: Operation) -> bool:
        """Whether a TRANSPOSE gives a product the order in which it is computed."""
        return transpose.op.index in self._returning_ops

    def _returning(self, product: Operation) -> Operation | None:
        tensor = product.output
        for _ in range(_LONGEST_CHAIN):
            readers = self._readers[tensor.index] if tensor is not None else []
            if tensor is None or not tensor.shape or len(readers) != 1:
                return None
            if readers[0].code == "TRANSPOSE":
                return readers[0]
            output = readers[0].output
            kept = output is not None and (elements(output.shape), output.shape[-1:]) == (
                elements(tensor.shape),
                tensor.shape[-1:],
            )
            tensor = output if readers[0].code in _KEEPING and kept else None
        return None


def _is_product(operation: Operation) -> bool:
    """Whether an op multiplies a constant matrix with what is computed."""
    matrix, weights = (*operation.operands, None, None)[:2]
    constant = matrix is not None and matrix.constant is not None
    return operation.code == "FULLY_CONNECTED" and constant and weights is not None and weights.constant is None


def _shapes(product: Operation) -> object:
    return tuple(t.shape if t is not None else None for t in product.operands[:2])
