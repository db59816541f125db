"""In which parts a target runs the ops that it takes, by TFLite's delegate partitioner, which compilers use as well.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/graph_info.cc
"""

import collections
from collections.abc import Iterator, Sequence

from components.quantization.conversion.flatbuffer import Subgraph


def supported_parts(graph: Subgraph, supported: Sequence[bool]) -> list[frozenset[int]]:
    """Returns the parts of supported ops, in the order in which they run.

    The partitioner grows parts of one kind in turn, each by all ops whose inputs are known by then, whatever their
    order in the file: an op behind an unsupported one stays out, a branch beside it goes on.

    Args:
      graph: The main subgraph.
      supported: By op, whether the target takes it by itself.
    """
    makers = {tensor: op.index for op in graph.ops for tensor in op.outputs}
    waiting: list[int] = []
    readers: dict[int, list[int]] = collections.defaultdict(list)
    for op in graph.ops:
        before = {makers[tensor] for tensor in op.inputs if tensor in makers}
        waiting.append(len(before))
        for maker in before:
            readers[maker].append(op.index)
    return list(_supported_parts(supported, waiting, readers))


def _supported_parts(
    supported: Sequence[bool], waiting: list[int], readers: dict[int, list[int]]
) -> Iterator[frozenset[int]]:
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
            yield frozenset(part)
        kind = not kind


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
