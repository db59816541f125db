"""What a rule of the audit is, and where it looks."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from components.quantization.conversion.audit.findings import Offender
from components.quantization.conversion.flatbuffer import Op, Subgraph, Tensor
from components.quantization.conversion.profiles import ConversionProfile
from components.quantization.schemes import QuantizationScheme

# Integers that stand for real numbers.
QUANTIZED = frozenset({"INT4", "INT8", "UINT8", "INT16"})
# Limits of the values of a type.
RANGES = {"INT4": (-8, 7), "INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767)}
# Ops with weights and a bias, and the dimension of the weights that is of output channels.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/quantization_spec.md
CHANNEL_AXIS = {"CONV_2D": 0, "CONV_3D": 4, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}

# Ops whose results stand for real numbers: as INT32 or BOOL their kernels have no quantized form of them.
OF_REAL_NUMBERS = frozenset(
    {
        *CHANNEL_AXIS,
        *("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_NORMALIZATION", "SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "TANH"),
        *("LEAKY_RELU", "PRELU", "HARD_SWISH", "GELU", "ELU", "RELU6", "RELU_N1_TO_1", "MEAN"),
        *("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "SVDF", "RESIZE_BILINEAR", "LOCAL_RESPONSE_NORMALIZATION"),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule.

    Attributes:
      name: Its id.
      kind: As of `Offender`.
      text: What it asks, one sentence.
      fix: What to do where it is broken.
    """

    name: str
    kind: str
    text: str
    fix: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A rule, the tensor that breaks it (None for the op itself), and how; and what else to do than the rule says."""

    rule: Rule
    tensor: Tensor | None
    reason: str
    fix: str = ""

    def offender(self, op: str, subgraph: int, op_index: int = -1, layer: str | None = None) -> Offender:
        """Returns this as a row of the table; the layer is that of the tensor if it is not given."""
        name = self.tensor.name if self.tensor else ""
        return Offender(
            rule=self.rule.name,
            kind=self.rule.kind,
            subgraph=subgraph,
            op_index=op_index,
            op=op,
            tensor=name,
            layer=layer_of(name) if layer is None else layer,
            text=self.rule.text,
            reason=self.reason,
            fix=self.fix or self.rule.fix,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An op in its subgraph, and what is asked of the model.

    Attributes:
      index: Index of the subgraph.
      graph: The subgraph.
      op: The op.
      profile: The target, if one is asked for.
      scheme: The scheme, if one is asked for.
      known: What was found out about tensors of the subgraph, shared by its places.
    """

    index: int
    graph: Subgraph
    op: Op
    profile: ConversionProfile | None
    scheme: QuantizationScheme | None
    known: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)

    def once(self, compute: Callable[..., Any], tensor: Tensor, *arguments: Any) -> Any:
        """Returns what a function finds out about a tensor: many ops may share one, which is looked at once."""
        key = (compute, tensor.index, *arguments)
        if key not in self.known:
            self.known[key] = compute(tensor, *arguments)
        return self.known[key]

    @property
    def work(self) -> int:
        """How many numbers and letters are looked at for this op, beside what is looked at once."""
        tensors = (*self.inputs, *self.outputs)
        sizes = sum(len(tensor.scale) + len(tensor.zero_point) + len(tensor.name) for tensor in tensors)
        # A constant has two values in a byte at most.
        channels = sum(min(max(t.shape, default=0), 2 * len(t.constant)) for t in tensors if t.constant is not None)
        return len(self.op.custom_code) + sizes + channels

    def operand(self, position: int) -> Tensor | None:
        """Returns the input at a position; None if it is not given."""
        operands = self.op.operands
        if position >= len(operands) or operands[position] < 0:
            return None
        return self.graph.tensors[operands[position]]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs that are given."""
        return tuple(self.graph.tensors[i] for i in self.op.inputs)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs."""
        return tuple(self.graph.tensors[i] for i in self.op.outputs)

    @property
    def is_compiled(self) -> bool:
        """Whether the op is a custom one that the target's runtime brings: its compiler made it."""
        allowed = self.profile.allowed_custom_ops if self.profile else ()
        return self.op.code == "CUSTOM" and self.op.custom_code in allowed

    def offender(self, found: Found) -> Offender:
        """Returns what was found at this place."""
        named = found.tensor or (self.outputs[0] if self.outputs else None)
        return found.offender(self.op.name, self.index, self.op.index, layer_of(named.name) if named else "")


def weighted(place: Place) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
    """Yields input, weights, bias and output of an op with weights, if it is one and has them."""
    op = place.op
    if op.code not in CHANNEL_AXIS or not place.outputs:
        return
    source = place.operand(2 if op.code == "TRANSPOSE_CONV" else 0)
    weights, bias = place.operand(1), place.operand(3 if op.code == "TRANSPOSE_CONV" else 2)
    if source is not None and weights is not None:
        yield source, weights, bias, place.outputs[0]


def is_sound(tensor: Tensor) -> bool:
    """Whether a tensor has scales that can be computed with: as many zero points, finite, above zero."""
    count = len(tensor.scale)
    return count > 0 and len(tensor.zero_point) == count and all(0 < scale < float("inf") for scale in tensor.scale)


def layer_of(name: str) -> str:
    """Returns the Keras layer that a tensor's name tells: the scope of the op that was fused last.

    >>> layer_of("model/relu/Relu;model/conv/BiasAdd;model/conv/Conv2D")
    'relu'
    >>> layer_of("StatefulPartitionedCall:0")
    ''
    """
    scopes = [part for part in name.split(";")[0].split("/") if part]
    if scopes and scopes[-1] in ("ReadVariableOp", "resource"):
        scopes = scopes[:-2] if scopes[-1] == "ReadVariableOp" else scopes[:-3]
        return scopes[-1] if scopes else ""
    return scopes[-2] if len(scopes) > 1 else ""
