"""Rules by which an op runs on a target, and the mapping that they give.

A rule is one sentence: the docstring of its check, the reason in the mapping, and a row of the target's SUPPORT.md.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from components.quantization.conversion import flatbuffer
from components.targets import Mapping, OpMapping
from components.targets._operation import Operation, Read, read_operations

Context = TypeVar("Context")
_SHOWN_DIMENSIONS = 8


@dataclasses.dataclass(frozen=True)
class Rule(Generic[Read, Context]):
    """A rule, of ops as a target reads them.

    Attributes:
      status: What is said of an op that breaks it, in the target's own words where it has any.
      breaks: Says what breaks it, in words, of an op and of what the target is asked for; None if nothing does.
    """

    status: str
    breaks: Callable[[Read, Context], str | None]

    @property
    def name(self) -> str:
        """Its name, for example "static-sizes"."""
        return self.breaks.__name__.replace("_", "-")

    @property
    def text(self) -> str:
        """The sentence."""
        return " ".join((inspect.getdoc(self.breaks) or "").split())


def by_rules(
    target: str,
    tflite: bytes,
    rules: Sequence[Rule[Operation, Context]],
    context: Context,
    mapped: Callable[[Operation], str],
) -> Mapping:
    """Maps every op of the main subgraph: to the target unless it breaks a rule, the first of which gives the status.

    Args:
      target: Name of the target.
      tflite: A TFLite flatbuffer.
      rules: The rules, in the order in which they are checked.
      context: What the target is asked for, such as its version.
      mapped: The status of an op that breaks none.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    operations = read_operations(tflite, flatbuffer.read_subgraphs(tflite)[0], Operation)
    return Mapping(target=target, ops=tuple(_placed(operation, rules, context, mapped) for operation in operations))


def _placed(
    operation: Operation,
    rules: Sequence[Rule[Operation, Context]],
    context: Context,
    mapped: Callable[[Operation], str],
) -> OpMapping:
    op = operation.op
    for rule in rules:
        got = rule.breaks(operation, context)
        if got is not None:
            reason = f"{rule.text} Got {got}."
            return OpMapping(index=op.index, op=op.name, on_target=False, status=rule.status, reason=reason)
    return OpMapping(index=op.index, op=op.name, on_target=True, status=mapped(operation))


def unknown_size(operation: Operation) -> str | None:
    """Returns the shape of the first tensor of an op with a size that is unknown until the model runs.

    A first dimension of 1 that may be something else, the batch, is 1 unless a program resizes it.
    """
    for tensor in (*operation.operands, *operation.outputs):
        if tensor is None:
            continue
        batch = (0,) if tensor.shape[:1] == (1,) else ()
        if tensor.unknown_dimensions not in ((), batch):
            unknown = tensor.unknown_dimensions
            return dotted(tuple(-1 if i in unknown else size for i, size in enumerate(tensor.shape)))
    return None


def scales_of_dense(operation: Operation) -> str | None:
    """Returns how many scales the weights of a FULLY_CONNECTED have, if they have several."""
    weights = operation.operands[1] if operation.code == "FULLY_CONNECTED" and len(operation.operands) > 1 else None
    return f"{len(weights.scale)} scales" if weights is not None and len(weights.scale) > 1 else None


def dotted(shape: Sequence[int]) -> str:
    """Returns a shape as text, cut after a few dimensions: a broken file may have millions.

    >>> dotted((1, 8, 8, 3))
    '1x8x8x3'
    """
    return "x".join(str(size) for size in shape[:_SHOWN_DIMENSIONS]) or "a scalar"
