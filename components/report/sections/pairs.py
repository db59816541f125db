"""Two models on the same examples: where a document has them, and their figures, the same in every table."""

from collections.abc import Iterator

from components.evaluation.measurements import FLOAT
from components.report.facts import Cell, Node

HEAD = ("difference", "low", "high", "McNemar p", "agreement", "only integer right", "only other right", "examples")


def cells(pair: Node) -> tuple[Cell, ...]:
    """Returns the figures of a pair, as many as `HEAD` names."""
    return (
        pair["difference"].cell("+.4f"),
        pair["low"].cell("+.4f"),
        pair["high"].cell("+.4f"),
        pair["mcnemar_p"].cell(".3g"),
        pair["agreement"].cell(".4f"),
        pair["better"].cell(",d"),
        pair["worse"].cell(",d"),
        pair["examples"].cell(",d"),
    )


def overall(root: Node, model: str = "") -> Iterator[Node]:
    """Yields the pairs over all examples, of one model or of all."""
    return (
        pair
        for pair in root["paired"]["paired"]
        if pair["slice"].value == [] and (not model or pair["model"].value == model)
    )


def sliced(root: Node) -> Iterator[Node]:
    """Yields the pairs of integer and float over slices."""
    return (pair for pair in root["paired"]["paired"] if pair["slice"].value and pair["model"].value == FLOAT)
