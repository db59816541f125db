"""One op with its tensors and options: what the rules look at."""

import dataclasses
import math
from typing import TypeVar

from components.quantization.conversion import flatbuffer_tables
from components.quantization.conversion.flatbuffer import Op, Subgraph, Tensor

# Operands that are parameters of an op, by position, not data that flows through it.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels
PARAMETERS = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "EXPAND_DIMS": (1,),
    "FULLY_CONNECTED": (2,),  # its weights may be computed
    "MEAN": (1,),
    "PAD": (1,),
    "PADV2": (1, 2),
    "PRELU": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "STRIDED_SLICE": (1, 2, 3),
    "SUM": (1,),
    "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0, 1, 3),
}
# Fields of the options of an op: their slots and formats in the schema.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/schema/schema.fbs
_CONVOLUTION = {"padding": (0, "<b"), "stride_width": (1, "<i"), "stride_height": (2, "<i")}
_POOL = {**_CONVOLUTION, "filter_width": (3, "<i"), "filter_height": (4, "<i"), "activation": (5, "<b")}
_OPTIONS = {
    "AVERAGE_POOL_2D": _POOL,
    "CONCATENATION": {"axis": (0, "<i"), "activation": (1, "<b")},
    "CONV_2D": {**_CONVOLUTION, "dilation_width": (4, "<i"), "dilation_height": (5, "<i")},
    "DEPTHWISE_CONV_2D": {**_CONVOLUTION, "dilation_width": (5, "<i"), "dilation_height": (6, "<i")},
    "FULLY_CONNECTED": {"weights_format": (1, "<b"), "keep_num_dims": (2, "<b")},
    "L2_NORMALIZATION": {"activation": (0, "<b")},
    "MAX_POOL_2D": _POOL,
    "PACK": {"axis": (1, "<i")},
    "RESIZE_BILINEAR": {"align_corners": (2, "<b"), "half_pixel_centers": (3, "<b")},
    "RESIZE_NEAREST_NEIGHBOR": {"align_corners": (0, "<b"), "half_pixel_centers": (1, "<b")},
    "STRIDED_SLICE": {"begin_mask": (0, "<i"), "ellipsis_mask": (2, "<i"), "new_axis_mask": (3, "<i")},
    "TRANSPOSE_CONV": _CONVOLUTION,
}
_DEFAULTS = {"dilation_width": 1, "dilation_height": 1}
_MODEL_SUBGRAPHS, _GRAPH_OPERATORS, _OPERATOR_OPTIONS = 2, 3, 4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """An op of the main subgraph.

    Attributes:
      op: The op.
      operands: Its inputs by position, None for an optional one that is not given.
      outputs: What it computes.
      options: The fields of its options that rules ask for, each with its default if it is not stored.
    """

    op: Op
    operands: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: dict[str, int]

    @property
    def code(self) -> str:
        """The name of its builtin code."""
        return self.op.code

    @property
    def data(self) -> tuple[Tensor, ...]:
        """The tensors that flow through the op: no constants, states or parameters."""
        parameters = PARAMETERS.get(self.code, ())
        inputs = [tensor for i, tensor in enumerate(self.operands) if tensor is not None and i not in parameters]
        return tuple(
            tensor for tensor in (*inputs, *self.outputs) if tensor.constant is None and not tensor.is_variable
        )

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The operands that the compiler needs to know."""
        positions = (i for i in PARAMETERS.get(self.code, ()) if i < len(self.operands))
        return tuple(tensor for i in positions if (tensor := self.operands[i]) is not None)

    @property
    def input(self) -> Tensor | None:
        """Its first operand that is data, constant or not; None if it has none."""
        parameters = PARAMETERS.get(self.code, ())
        return next((t for i, t in enumerate(self.operands) if t is not None and i not in parameters), None)

    @property
    def output(self) -> Tensor | None:
        """Its first result; None if it has none."""
        return self.outputs[0] if self.outputs else None

    def integers(self, position: int) -> tuple[int, ...]:
        """Returns the values of a small constant operand, such as axes; empty if it is no such constant.

        Args:
          position: That of the operand.
        """
        tensor = self.operands[position] if position < len(self.operands) else None
        if tensor is None or tensor.constant is None or tensor.dtype not in ("INT32", "INT64"):
            return ()
        width = 4 if tensor.dtype == "INT32" else 8
        content = bytes(tensor.constant[: width * _MOST_DIMENSIONS])
        whole = len(content) // width
        return tuple(int.from_bytes(content[i * width : (i + 1) * width], "little", signed=True) for i in range(whole))


_MOST_DIMENSIONS = 64
Read = TypeVar("Read", bound=Operation)


def elements(shape: tuple[int, ...]) -> int:
    """Returns how many elements a tensor of this shape has."""
    return math.prod(shape)


def read_operations(tflite: bytes, graph: Subgraph, kind: type[Read]) -> tuple[Read, ...]:
    """Returns the ops of the main subgraph with their tensors and options.

    Args:
      tflite: The flatbuffer.
      graph: Its main subgraph, as `flatbuffer.read_subgraphs` returns it.
      kind: What is made of each: `Operation`, or a target's own kind of it.

    Raises:
      ValueError: If options lead out of the file.
    """
    main = next(iter(flatbuffer_tables.Buffer(tflite).root().tables(_MODEL_SUBGRAPHS)))
    tables = main.tables(_GRAPH_OPERATORS)
    return tuple(
        kind(
            op=op,
            operands=tuple(graph.tensors[i] if i >= 0 else None for i in op.operands),
            outputs=tuple(graph.tensors[i] for i in op.outputs),
            options=_read_options(op.code, table),
        )
        for op, table in zip(graph.ops, tables, strict=True)
    )


def _read_options(code: str, operator: flatbuffer_tables.Table) -> dict[str, int]:
    fields = _OPTIONS.get(code, {})
    options = operator.table(_OPERATOR_OPTIONS) if fields else None
    return {
        name: int(options.number(slot, kind, _DEFAULTS.get(name, 0))) if options else _DEFAULTS.get(name, 0)
        for name, (slot, kind) in fields.items()
    }
