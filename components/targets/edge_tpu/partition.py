"""Which supported ops the compiler keeps: TFLite's delegate partitioner, and the first part that it finds.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/graph_info.cc
"""

import collections
from collections.abc import Sequence

from components.quantization.conversion.flatbuffer import Subgraph


def kept_ops(graph: Subgraph, supported: Sequence[bool], *, multiple_subgraphs: bool = False) -> frozenset[int]:
    """Returns the ops that run on the Edge TPU.

    The partitioner grows parts of one kind in turn, each by all ops whose inputs are known by then, whatever their
    order in the file: an op behind an unsupported one stays out, a branch beside it goes on. The first supported part
    is kept, so unsupported ops at the start run on the CPU before it.

    Args:
      graph: The main subgraph.
      supported: By op, whether it maps by itself.
      multiple_subgraphs: Whether all supported parts are kept, as with `--enable_multiple_subgraphs`.
    """
    if multiple_subgraphs:
        return frozenset(op.index for op in graph.ops if supported[op.index])
    makers = {tensor: op.index for op in graph.ops for tensor in op.outputs}
    waiting: list[int] = []
    readers: dict[int, list[int]] = collections.defaultdict(list)
    for op in graph.ops:
        before = {makers[tensor] for tensor in op.inputs if tensor in makers}
        waiting.append(len(before))
        for maker in before:
            readers[maker].append(op.index)
    return _first_part(supported, waiting, readers)


def _first_part(supported: Sequence[bool], waiting: list[int], readers: dict[int, list[int]]) -> frozenset[int]:
    """Runs ops of one kind until none is ready, then those of the other; ops in a circle never are."""
    ready: dict[bool, collections.deque[int]] = {True: collections.deque(), False: collections.deque()}
    for op, count in enumerate(waiting):
        if not count:
            ready[bool(supported[op])].append(op)
    # The first op of the file that can run says which kind is first: a supported one leaves out what waits for the CPU.
    kind = not (ready[False] and (not ready[True] or ready[False][0] < ready[True][0]))
    while ready[True] or ready[False]:
        part = _grown(ready, kind, supported, waiting, readers)
        if kind and part:
            return frozenset(part)
        kind = not kind
    return frozenset()


def _grown(
    ready: dict[bool, collections.deque[int]],
    kind: bool,
    supported: Sequence[bool],
    waiting: list[int],
    readers: dict[int, list[int]],
) -> list[int]:
    part = []
    while ready[kind]:
        op = ready[kind].popleft()
        part.append(op)
        for reader in readers[op]:
            waiting[reader] -= 1
            if not waiting[reader]:
                ready[bool(supported[reader])].append(reader)
    return part
