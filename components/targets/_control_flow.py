"""Subgraphs that ops such as WHILE run: which they are, and what they hide from figures of the main subgraph."""

from collections.abc import Sequence

from components.quantization.conversion.flatbuffer import Op, Subgraph
from components.quantization.macs import macs


def subgraphs_run_by(op: Op, graphs: Sequence[Subgraph]) -> tuple[Subgraph, ...]:
    """Returns the subgraphs that an op runs, and those that their ops run in turn, each once.

    Args:
      op: An op of any subgraph.
      graphs: All subgraphs of the model.
    """
    found = list(dict.fromkeys(op.subgraphs))
    for index in found:  # it grows
        found += {i for inner in graphs[index].ops for i in inner.subgraphs} - set(found)
    return tuple(graphs[index] for index in found)


def multiplies_inside(op: Op, graphs: Sequence[Subgraph]) -> bool:
    """Whether an op runs subgraphs that multiply: how often they do is not in the file."""
    return any(macs(inner, graph) for graph in subgraphs_run_by(op, graphs) for inner in graph.ops)
