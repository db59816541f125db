"""What changed between two models."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.quantization.calibration_set import CalibrationSet
from pipelines.lineage.find import SHORT
from pipelines.lineage.story import FORMAT, Lineage
from pipelines.lineage.tree import shown


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One value that is not the same.

    Attributes:
      group: "model", "data and code", "settings", "versions", "metrics" or "verdicts".
      name: Of the value, such as "training.batch_size".
      before: The value of the first model; None if it has none.
      after: That of the second.
    """

    group: str
    name: str
    before: Any
    after: Any


def changes_between(before: Lineage, after: Lineage) -> list[Change]:
    """Returns what two models differ in, by group and name; empty if they are one and the same."""
    found = []
    groups = _groups(before), _groups(after)
    for group in groups[0]:
        old, new = (flat(one[group]) for one in groups)
        names = [*old, *(name for name in new if name not in old)]
        found += [
            Change(group=group, name=name, before=old.get(name), after=new.get(name))
            for name in names
            if old.get(name) != new.get(name)
        ]
    return found


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested values by dotted names.

    >>> flat({"training": {"seed": 1}, "gates": ["a", "b"]})
    {'training.seed': 1, 'gates': ['a', 'b']}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in flat(value).items()}
        else:
            found[name] = value
    return found


def changes_json(before: Lineage, after: Lineage, changes: Sequence[Change]) -> str:
    """Returns the changes as indented JSON: "format", "before", "after", the models, and "changes"."""
    models = [{"id": one.id, "store": one.store, "sha256": one.sha256, "run": one.run} for one in (before, after)]
    return json.dumps(
        {
            "format": FORMAT,
            "before": models[0],
            "after": models[1],
            "changes": [dataclasses.asdict(change) for change in changes],
        },
        indent=2,
    )


def changes_lines(before: Lineage, after: Lineage, changes: Sequence[Change]) -> list[str]:
    """Returns the changes for people: a line for each, below the name of its group."""
    lines = [
        f"{sign} {one.kind} Model #{one.id}, {one.sha256[:SHORT]}, run {one.run}, in {one.store}"
        for sign, one in (("-", before), ("+", after))
    ]
    if not changes:
        return [*lines, "nothing changed"]
    group = ""
    for change in changes:
        if change.group != group:
            group = change.group
            lines.append(group)
        lines.append(f"  {change.name}: {_text(change.before)} -> {_text(change.after)}{_difference(change)}")
    return lines


def _groups(lineage: Lineage) -> dict[str, Mapping[str, Any]]:
    verdicts = {
        f"{one.component}": {
            "blessed": one.blessed,
            "codes": list(one.codes),
            "overrides": [dict(override) for override in one.overrides],
        }
        for one in lineage.judgements  # the last of a component counts
    }
    model = {
        "kind": lineage.kind,
        "target": lineage.target,
        "pipeline": lineage.pipeline,
        **{f"{one.kind} sha256": one.sha256 for one in lineage.chain},
        "size_bytes": next((one.size_bytes for one in lineage.chain if one.id == lineage.id), 0),
    }
    return {
        "model": model,
        "data and code": {
            **lineage.origin,
            **{f"calibration by {one.by}": _without_id(one) for one in lineage.calibration_sets},
        },
        "settings": lineage.settings,
        "versions": lineage.versions,
        "metrics": lineage.metrics,
        "verdicts": verdicts,
    }


def _without_id(one: CalibrationSet) -> dict[str, Any]:
    """A set by its content: the number of its artifact is another in each run."""
    return {name: value for name, value in dataclasses.asdict(one).items() if name != "artifact"}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, list | dict) else shown(value)


def _difference(change: Change) -> str:
    """Of numbers, by how much they differ; a bool is none."""
    numbers = [one for one in (change.before, change.after) if type(one) in (int, float)]
    return f" ({numbers[1] - numbers[0]:+.6g})" if len(numbers) == 2 else ""
