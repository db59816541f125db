"""Whether the last blessed model is one that an integer model can be held against."""

from collections.abc import Mapping

from components.quantization.contract.schema import Contract, Edge, Input, Output


def incompatibilities(contract: str, baseline: str) -> tuple[str, ...]:
    """Compares inputs, outputs and labels by name; scales may differ, as they do after every training.

    Args:
      contract: The integer model's io_contract.json.
      baseline: That of the last blessed model.

    Returns:
      What differs, one sentence each; empty if the baseline is compatible.

    Raises:
      ValueError: If the integer model's contract cannot be read; if the baseline's cannot, that is what differs.
    """
    ours = Contract.from_json(contract)
    try:
        theirs = Contract.from_json(baseline)
    except ValueError as error:
        return (f"its contract cannot be read: {error}",)
    return (*_differences("input", ours.inputs, theirs.inputs), *_differences("output", ours.outputs, theirs.outputs))


def foreign(ours: Mapping[str, str], baseline: Mapping[str, str]) -> tuple[str, ...]:
    """Returns how the last blessed model is another pipeline's, task's or target's, one sentence each.

    Args:
      ours: What made the integer model, by what it is called; "" where that is not known.
      baseline: The same of the last blessed model.
    """
    return tuple(
        f"it is of {key} {baseline[key]}, not {ours[key]}"
        for key in ours
        if ours[key] and baseline.get(key) and ours[key] != baseline[key]
    )


def _differences(kind: str, ours: tuple[Edge, ...], theirs: tuple[Edge, ...]) -> list[str]:
    mine, other = ({edge.name: edge for edge in edges} for edges in (ours, theirs))
    found = [f"{kind} {name!r} is new" for name in mine if name not in other]
    found += [f"{kind} {name!r} is gone" for name in other if name not in mine]
    for name in mine.keys() & other.keys():
        facts, before = _facts(mine[name]), _facts(other[name])
        found += [
            f"{kind} {name!r}: {fact} {before[fact]} became {facts[fact]}"
            for fact in facts
            if facts[fact] != before[fact]
        ]
    return sorted(found)


def _facts(edge: Edge) -> dict[str, str]:
    facts = {"dtype": edge.dtype, "shape": "x".join(map(str, edge.shape[1:])) or "scalar"}
    if isinstance(edge, Input):
        facts["raw features"] = ", ".join(sorted(edge.preparation.raw_features))
    if isinstance(edge, Output):
        facts["labels"] = ", ".join(edge.labels)
    return facts
