"""One op with its tensors and options: what the rules look at."""

import dataclasses

from components.quantization.conversion import flatbuffer_tables
from components.quantization.conversion.flatbuffer import Op, Subgraph, Tensor

# Fields of the options of an op: their slots and formats in the schema.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/schema/schema.fbs
_CONVOLUTION = {"padding": (0, "<b"), "stride_width": (1, "<i"), "stride_height": (2, "<i")}
_POOL = {**_CONVOLUTION, "filter_width": (3, "<i"), "filter_height": (4, "<i")}
_OPTIONS = {
    "AVERAGE_POOL_2D": _POOL,
    "CONV_2D": {**_CONVOLUTION, "dilation_width": (4, "<i"), "dilation_height": (5, "<i")},
    "DEPTHWISE_CONV_2D": {**_CONVOLUTION, "dilation_width": (5, "<i"), "dilation_height": (6, "<i")},
    "MAX_POOL_2D": _POOL,
    "RESIZE_BILINEAR": {"align_corners": (2, "<b"), "half_pixel_centers": (3, "<b")},
    "RESIZE_NEAREST_NEIGHBOR": {"align_corners": (0, "<b"), "half_pixel_centers": (1, "<b")},
    "TRANSPOSE_CONV": _CONVOLUTION,
}
_DEFAULTS = {"dilation_width": 1, "dilation_height": 1}
_MODEL_SUBGRAPHS, _GRAPH_OPERATORS, _OPERATOR_OPTIONS = 2, 3, 4
_MOST_VALUES = 64

# Operands that are parameters of an op, by position, not data that flows through it.
_PARAMETERS = {
    "ARG_MAX": (1,),
    "EXPAND_DIMS": (1,),
    "GATHER": (1,),
    "MEAN": (1,),
    "MIRROR_PAD": (1,),
    "PAD": (1,),
    "PADV2": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "REVERSE_V2": (1,),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "SPLIT_V": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "SUM": (1,),
    "TILE": (1,),
    "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0,),
}
# Positions of weights and of biases.
_WEIGHTS = {"CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2), "TRANSPOSE_CONV": (1, 3)}


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
    def inputs(self) -> tuple[Tensor, ...]:
        """Its feature maps, constant or not: no parameters, weights or biases."""
        if self.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":  # the others are weights, biases and states
            return tuple(tensor for tensor in self.operands[:1] if tensor is not None)
        apart = (*_PARAMETERS.get(self.code, ()), *_WEIGHTS.get(self.code, ()))
        return tuple(tensor for i, tensor in enumerate(self.operands) if tensor is not None and i not in apart)

    @property
    def feature_maps(self) -> tuple[Tensor, ...]:
        """What flows through the op."""
        return (*self.inputs, *self.outputs)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Operands that say how, such as axes."""
        return tuple(tensor for i in _PARAMETERS.get(self.code, ()) if (tensor := self.operand(i)) is not None)

    @property
    def weights(self) -> Tensor | None:
        """Its weights; None if it has none."""
        return self.operand(_WEIGHTS[self.code][0]) if self.code in _WEIGHTS else None

    @property
    def bias(self) -> Tensor | None:
        """Its bias; None if it has none."""
        return self.operand(_WEIGHTS[self.code][1]) if self.code in _WEIGHTS else None

    def operand(self, position: int) -> Tensor | None:
        """Returns the operand at a position; None if there is none."""
        return self.operands[position] if position < len(self.operands) else None

    def integers(self, position: int) -> tuple[int, ...]:
        """Returns the first values of a constant operand, such as axes; empty if it is no constant of 32 bits."""
        tensor = self.operand(position)
        if tensor is None or tensor.constant is None or tensor.dtype != "INT32":
            return ()
        content = bytes(tensor.constant[: 4 * _MOST_VALUES])
        return tuple(
            int.from_bytes(content[i : i + 4], "little", signed=True) for i in range(0, len(content) // 4 * 4, 4)
        )


def read_operations(tflite: bytes, graph: Subgraph) -> tuple[Operation, ...]:
    """Returns the ops of the main subgraph with their tensors and options.

    Args:
      tflite: The flatbuffer.
      graph: Its main subgraph, as `flatbuffer.read_subgraphs` returns it.

    Raises:
      ValueError: If options lead out of the file.
    """
    main = next(iter(flatbuffer_tables.Buffer(tflite).root().tables(_MODEL_SUBGRAPHS)))
    return tuple(
        Operation(
            op=op,
            operands=tuple(graph.tensors[i] if i >= 0 else None for i in op.operands),
            outputs=tuple(graph.tensors[i] for i in op.outputs),
            options=_read_options(op.code, table),
        )
        for op, table in zip(graph.ops, main.tables(_GRAPH_OPERATORS), strict=True)
    )


def _read_options(code: str, operator: flatbuffer_tables.Table) -> dict[str, int]:
    fields = _OPTIONS.get(code, {})
    options = operator.table(_OPERATOR_OPTIONS) if fields else None
    return {
        name: int(options.number(slot, kind, _DEFAULTS.get(name, 0))) if options else _DEFAULTS.get(name, 0)
        for name, (slot, kind) in fields.items()
    }
