"""The nodes of a graph that round tensors of a model of 8 bits to 16, and the 8-bit ranges behind them."""

from collections.abc import Iterator, Sequence
from typing import Any

# Nodes that hold the 8-bit range of a tensor, beside the node that rounds it to 16 bits.
MINIMUM_NAME, MAXIMUM_NAME = "int8_minimum", "int8_maximum"
FAKE_QUANTIZATION = "FakeQuantWithMinMaxVars"


def wide_nodes(nodes: Sequence[Any]) -> Iterator[tuple[Any, str, str]]:
    """Yields each node that rounds a tensor of a model of 8 bits to 16, with the names of those of its 8-bit range."""
    names = {node.name for node in nodes}
    for node in nodes:
        minimum, maximum = (f"{node.name[: node.name.rfind('/') + 1]}{name}" for name in (MINIMUM_NAME, MAXIMUM_NAME))
        if node.op != FAKE_QUANTIZATION or "num_bits" not in node.attr:  # the default of 8 is left out
            continue
        if node.attr["num_bits"].i == 16 and minimum in names:
            yield node, minimum, maximum


def narrow(definition: Any) -> None:
    """Rewrites a GraphDef so that what is rounded to 16 bits is rounded to 8, in the range of these."""
    _narrow(definition.node, "")
    for function in definition.library.function:
        _narrow(function.node_def, ":output:0")


def _narrow(nodes: Any, output: str) -> None:
    found = list(wide_nodes(nodes))
    for node, *ends in found:
        node.attr["num_bits"].i = 8
        node.attr["narrow_range"].b = False
        node.input[1:3] = [f"{end}{output}" for end in ends]
