"""Whether the last blessed model is one that an integer model can be held against."""

import dataclasses

from components.quantization.contract.schema import Contract, Edge, Input, Output


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a model is of. Models of other origins solve other problems, and are not what came before it.

    Attributes:
      pipeline: Name of the pipeline; "" where that is not known, as below: nothing is then of the same origin.
      task: Dotted path of the module that describes the task.
      target: Name of the target.
    """

    pipeline: str
    task: str
    target: str

    def __str__(self) -> str:
        """The origin as one word, which a blessing carries and resolvers look for.

        >>> str(Origin(pipeline="digits", task="tasks.digits", target="cpu"))
        'digits/tasks.digits/cpu'
        """
        return "/".join((self.pipeline, self.task, self.target))


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


def foreign(ours: Origin, baseline: Origin) -> tuple[str, ...]:
    """Returns how the last blessed model is of another origin, or of none, one sentence each; empty if it is not.

    Args:
      ours: Origin of the integer model.
      baseline: Origin of the last blessed model.

    >>> ours = Origin(pipeline="digits", task="tasks.digits", target="cpu")
    >>> foreign(ours, dataclasses.replace(ours, target="edge_tpu"))
    ('it is of target edge_tpu, not cpu',)
    """
    pairs = zip(dataclasses.asdict(ours).items(), dataclasses.astuple(baseline), strict=True)
    return tuple(
        f"it is of {what} {theirs or '(not known)'}, not {mine or '(not known)'}"
        for (what, mine), theirs in pairs
        if mine != theirs or not theirs
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
