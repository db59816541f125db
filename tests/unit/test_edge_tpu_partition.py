"""Which supported ops the compiler keeps."""

import random

import pytest

from components.quantization.conversion.flatbuffer import Op, Subgraph
from components.targets.edge_tpu.partition import kept_ops


def _graph(*edges: tuple[list[int], list[int]]) -> Subgraph:
    ops = tuple(
        Op(index=i, code="ADD", custom_code="", version=1, inputs=tuple(inputs), outputs=tuple(outputs))
        for i, (inputs, outputs) in enumerate(edges)
    )
    return Subgraph(tensors=(), ops=ops, inputs=(0,), outputs=())


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
def test_kept_ops_are_the_first_part_when_ops_are_in_a_row(supported: list[bool], kept: set[int]) -> None:
    assert kept_ops(_ROW, supported) == kept


def test_kept_ops_are_all_supported_ones_when_there_may_be_several_subgraphs() -> None:
    assert kept_ops(_ROW, [False, True, False, True], multiple_subgraphs=True) == {1, 3}


def test_kept_ops_go_on_beside_the_cut_when_they_do_not_depend_on_it() -> None:
    # 0 -> 1 (cut) -> 3, 0 -> 2 -> 4; 5 joins both.
    graph = _graph(([0], [1]), ([1], [2]), ([1], [3]), ([2], [4]), ([3], [5]), ([4, 5], [6]))
    assert kept_ops(graph, [True, False, True, True, True, True]) == {0, 2, 4}


def test_kept_ops_leave_out_what_waits_for_a_later_cpu_op_when_a_supported_one_is_first() -> None:
    # Two inputs: the branch of op 0 is supported from its start, that of op 1 begins on the CPU.
    graph = _graph(([0], [1]), ([7], [2]), ([2], [3]))
    assert kept_ops(graph, [True, False, True]) == {0}
    assert kept_ops(_graph(([7], [2]), ([0], [1]), ([2], [3])), [False, True, True]) == {1, 2}


def test_kept_ops_do_not_depend_on_the_order_in_the_file_when_the_first_part_is_the_same() -> None:
    graph = _graph(([2], [3]), ([1], [2]), ([0], [1]))
    assert kept_ops(graph, [True, True, True]) == {0, 1, 2}


def test_kept_ops_end_when_ops_wait_for_each_other() -> None:
    graph = _graph(([0], [1]), ([3], [2]), ([2], [3]), ([4], [4]))
    assert kept_ops(graph, [True, True, True, True]) == {0}


def test_kept_ops_are_those_of_the_partitioner_when_graphs_are_random() -> None:
    random_ = random.Random(0)
    for _ in range(300):
        size = random_.randrange(1, 12)
        edges = [([random_.randrange(i + 1) for _ in range(random_.randrange(3))], [i + 1]) for i in range(size)]
        supported = [random_.random() < 0.7 for _ in range(size)]
        assert kept_ops(_graph(*edges), supported) == _by_definition(edges, supported)


def _by_definition(edges: list[tuple[list[int], list[int]]], supported: list[bool]) -> set[int]:
    """The loop of TFLite's graph_info.cc, pass after pass over all ops."""
    made = {tensor: op for op, (_, outputs) in enumerate(edges) for tensor in outputs}
    done: set[int] = set()
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
            return part
        done |= part
    return set()
