"""In which parts supported ops run."""

import random

import pytest

from components.quantization.conversion.flatbuffer import Op, Subgraph
from components.targets._partition import supported_parts


def _graph(*edges: tuple[list[int], list[int]]) -> Subgraph:
    ops = tuple(
        Op(index=i, code="ADD", custom_code="", version=1, inputs=tuple(inputs), outputs=tuple(outputs))
        for i, (inputs, outputs) in enumerate(edges)
    )
    return Subgraph(tensors=(), ops=ops, inputs=(0,), outputs=())


def _first(graph: Subgraph, supported: list[bool]) -> frozenset[int]:
    return next(iter(supported_parts(graph, supported)), frozenset())


# Tensors by number: 0 is the input, an op i computes tensor i + 1.
_ROW = _graph(([0], [1]), ([1], [2]), ([2], [3]), ([3], [4]))


@pytest.mark.parametrize(
    ("supported", "kept"),
    [
        ([True, True, True, True], {0, 1, 2, 3}),
        ([True, False, True, True], {0}),
        ([False, True, True, False], {1, 2}),
        ([False, False, False, False], set()),
        ([False, True, False, True], {1}),
    ],
)
def test_first_part_is_kept_when_ops_are_in_a_row(supported: list[bool], kept: set[int]) -> None:
    assert _first(_ROW, supported) == kept


def test_parts_are_in_the_order_in_which_they_run() -> None:
    assert supported_parts(_ROW, [False, True, False, True]) == [{1}, {3}]
    # 0 -> 1 (cut) -> 3, 0 -> 2: what goes on beside the cut is no part of its own.
    graph = _graph(([0], [1]), ([1], [2]), ([1], [3]), ([2], [4]))
    assert supported_parts(graph, [True, False, True, True]) == [{0, 2}, {3}]


def test_first_part_goes_on_beside_the_cut_when_they_do_not_depend_on_it() -> None:
    # 0 -> 1 (cut) -> 3, 0 -> 2 -> 4; 5 joins both.
    graph = _graph(([0], [1]), ([1], [2]), ([1], [3]), ([2], [4]), ([3], [5]), ([4, 5], [6]))
    assert _first(graph, [True, False, True, True, True, True]) == {0, 2, 4}


def test_first_part_leaves_out_what_waits_for_a_later_cpu_op_when_a_supported_one_is_first() -> None:
    # Two inputs: the branch of op 0 is supported from its start, that of op 1 begins on the CPU.
    graph = _graph(([0], [1]), ([7], [2]), ([2], [3]))
    assert _first(graph, [True, False, True]) == {0}
    assert _first(_graph(([7], [2]), ([0], [1]), ([2], [3])), [False, True, True]) == {1, 2}


def test_first_part_does_not_depend_on_the_order_in_the_file_when_the_first_part_is_the_same() -> None:
    graph = _graph(([2], [3]), ([1], [2]), ([0], [1]))
    assert _first(graph, [True, True, True]) == {0, 1, 2}


def test_first_part_ends_when_ops_wait_for_each_other() -> None:
    graph = _graph(([0], [1]), ([3], [2]), ([2], [3]), ([4], [4]))
    assert _first(graph, [True, True, True, True]) == {0}


def test_parts_are_those_of_the_partitioner_when_graphs_are_random() -> None:
    random_ = random.Random(0)
    for _ in range(300):
        size = random_.randrange(1, 12)
        edges = [([random_.randrange(i + 1) for _ in range(random_.randrange(3))], [i + 1]) for i in range(size)]
        supported = [random_.random() < 0.7 for _ in range(size)]
        assert supported_parts(_graph(*edges), supported) == _by_definition(edges, supported)


def _by_definition(edges: list[tuple[list[int], list[int]]], supported: list[bool]) -> list[set[int]]:
    """The loop of TFLite's graph_info.cc, pass after pass over all ops."""
    made = {tensor: op for op, (_, outputs) in enumerate(edges) for tensor in outputs}
    done: set[int] = set()
    parts = []
    while len(done) < len(edges):
        part: set[int] = set()
        kind = None
        grown = True
        while grown:
            grown = False
            for op, (inputs, _) in enumerate(edges):
                known = all(tensor not in made or made[tensor] in done | part for tensor in inputs)
                if op not in done | part and known and kind in (None, supported[op]):
                    kind, grown = supported[op], True
                    part.add(op)
        if kind:
            parts.append(part)
        done |= part
    return parts
