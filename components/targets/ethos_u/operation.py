"""One op as the rules of the NPU look at it: feature maps, weights, bias, and parameters that say how."""

import dataclasses

from components.quantization.conversion.flatbuffer import Tensor
from components.targets._operation import Operation

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
class NpuOperation(Operation):
    """An op of the main subgraph, by what Vela takes its operands for."""

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
        return () if tensor is None or tensor.dtype != "INT32" else Operation.integers(self, position)
