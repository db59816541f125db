"""Figures of a report that follow from the model and from where its ops run."""

import math
import re
from collections.abc import Callable, Sequence

from components.quantization.conversion import flatbuffer
from components.quantization.macs import macs
from components.targets._control_flow import multiplies_inside
from components.targets._report import BreakingOp, Share

# Names that the converter makes up, and those of a function's outputs: no layers.
_NO_LAYER = re.compile(
    r"tfl\.\w+\d*|arith\.\w+\d*|StatefulPartitionedCall.*|Identity.*|serving_default.*|PartitionedCall.*"
)

_CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")
_MOST_DIMENSIONS = 64
_TYPE_CHANGES = frozenset({"CAST", "DEQUANTIZE", "QUANTIZE"})


def shares(graphs: Sequence[flatbuffer.Subgraph], on_target: Sequence[bool]) -> tuple[Share, Share]:
    """Returns what target and CPU do; a constant that several ops read counts where it is read first.

    Of a side with an op that runs multiplications of another subgraph, as a WHILE does, only the ops are known.

    Args:
      graphs: All subgraphs, the main one first.
      on_target: Of each op of the main subgraph, whether it is on the target.
    """
    graph = graphs[0]
    seen: set[int] = set()
    totals = {True: [0, 0, 0], False: [0, 0, 0]}
    hidden = {there for op, there in zip(graph.ops, on_target, strict=True) if multiplies_inside(op, graphs)}
    for op, there in zip(graph.ops, on_target, strict=True):
        constants = {i for i in op.inputs if _is_parameter(graph.tensors[i])} - seen
        seen |= constants
        parameters = sum(math.prod(graph.tensors[i].shape) for i in constants)
        for position, figure in enumerate((1, macs(op, graph), parameters)):
            totals[there][position] += figure
    target, cpu = (
        Share(ops=ops) if side in hidden else Share(ops=ops, macs=n, parameters=parameters)
        for side, (ops, n, parameters) in totals.items()
    )
    return target, cpu


def uncounted(graphs: Sequence[flatbuffer.Subgraph]) -> tuple[str, ...]:
    """Returns a sentence for each op of the main subgraph that hides multiplications from the figures."""
    hidden = tuple(
        f"op {op.index}, {op.name}, runs a subgraph that multiplies, how often is not in the file: its figures are not"
        " known"
        for op in graphs[0].ops
        if multiplies_inside(op, graphs)
    )
    guessed = tuple(
        f"op {op.index}, {op.name}, has a size that is unknown until the model runs: its multiplications are counted as"
        " if that were 1"
        for op in graphs[0].ops
        if macs(op, graphs[0]) and _has_unknown_size(op, graphs[0])
    )
    return hidden + guessed


def _has_unknown_size(op: flatbuffer.Op, graph: flatbuffer.Subgraph) -> bool:
    """Whether a size of an op's tensors is unknown; not that of a batch, which is 1 unless a program resizes it."""
    tensors = [graph.tensors[i] for i in (*op.inputs, *op.outputs)]
    return any(t.unknown_dimensions not in ((), (0,) if t.shape[:1] == (1,) else ()) for t in tensors)


def first_breaking_op(
    graph: flatbuffer.Subgraph,
    on_target: Sequence[bool],
    statuses: Sequence[str],
    reasons: Sequence[str],
    edit: Callable[[str, str], str],
) -> BreakingOp | None:
    """Returns the first op off the target that needs a value from it; without one, the first off it for a reason.

    Ops before the target's part, such as the QUANTIZE of a float input, do not end it.

    Args:
      graph: The main subgraph.
      on_target: Of each op, whether it is on the target.
      statuses: Of each op, why.
      reasons: Of each op, the rule that decided, or "".
      edit: Says what to change, of an op's name and status.
    """
    off = [op for op, there in zip(graph.ops, on_target, strict=True) if not there]
    behind: set[int] = set()  # tensors that depend on the target
    for op, there in zip(graph.ops, on_target, strict=True):
        if there or behind & set(op.inputs):
            behind |= set(op.outputs)
    with_reason = next((op for op in off if reasons[op.index]), off[0] if off else None)
    found = next((op for op in off if behind & set(op.inputs)), with_reason)
    if found is None:
        return None
    status = statuses[found.index]
    return BreakingOp(
        index=found.index,
        op=found.name,
        layer=layer_of(found, graph),
        status=status,
        reason=reasons[found.index],
        edit=edit(found.name, status),
    )


def layer_of(op: flatbuffer.Op, graph: flatbuffer.Subgraph) -> str:
    """Returns the Keras layer of an op: the scope of its output, else of its constants; "" if neither tells.

    An op that only changes a type is of the layer that it reads from, if its output does not tell. The converter names
    a tensor "model/layer/Op;..." by what was fused into it, the last op first, and an output of the model as the model
    does, which for Keras is the layer's name.
    """
    constants = [i for i in op.inputs if graph.tensors[i].constant is not None or op.code in _TYPE_CHANGES]
    for name in (graph.tensors[i].name for i in (*op.outputs, *constants)):
        layer = _layer_of_name(name)
        if layer:
            return layer
    outputs = [graph.tensors[i].name for i in op.outputs if i in graph.outputs]
    return next((name for name in outputs if re.fullmatch(r"\w+", name) and not _NO_LAYER.fullmatch(name)), "")


def _layer_of_name(name: str) -> str:
    """The layer in a tensor's name.

    A SavedModel's signature puts the calls before it that lead there.

    >>> [_layer_of_name(name) for name in ("model/conv_1/Relu;model/bn/add", "pool/MaxPool", "tfl.quantize", "x")]
    ['conv_1', 'pool', '', '']
    >>> _layer_of_name("StatefulPartitionedCall/StatefulPartitionedCall_1/digits/conv1_relu/Relu")
    'conv1_relu'
    """
    path = name.partition(";")[0].partition(":")[0].split("/")
    while len(path) > 1 and _CALL.fullmatch(path[0]):
        del path[0]
    if len(path) < 2 or _NO_LAYER.fullmatch(path[0]):
        return ""
    return "/".join(path[1:-1]) or path[0]


def _is_parameter(tensor: flatbuffer.Tensor) -> bool:
    """Whether it is a weight or a bias, not a shape, an axis or paddings; none has very many dimensions."""
    is_number = bool(tensor.scale) or tensor.dtype.startswith("FLOAT")
    return tensor.constant is not None and is_number and len(tensor.shape) <= _MOST_DIMENSIONS
