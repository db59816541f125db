"""Options of targets: as JSON, and of targets without a compiler from JSON."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Chosen = TypeVar("Chosen")

_MOST_SECONDS = 7 * 24 * 60 * 60  # a week: beyond some years, timers overflow


class TargetOptions:
    """What the options of all targets have; each is a frozen dataclass with a default for every field."""

    __slots__ = ()

    def to_json(self) -> str:
        """Returns the canonical JSON: sorted keys, no spaces. Part of a component's cache key."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))  # type: ignore[call-overload]


def mistyped(options: Any) -> list[str]:
    """Returns a sentence for each option of another type than its default."""
    fields = dataclasses.fields(options)
    return _wrong_types({field.name: getattr(options, field.name) for field in fields}, fields)


def _wrong_types(values: Mapping[str, Any], fields: Iterable[Any]) -> list[str]:
    defaults = {field.name: field.default for field in fields}
    return [
        f"{name}: got {value!r}, expected something like {defaults[name]!r}"
        for name, value in values.items()
        if name in defaults and type(value) is not type(defaults[name])
    ]


def wrong_counts(options: Any, *names: str) -> list[str]:
    """Returns a sentence for each of the named options that is no count, or, of "..._sec", no limit of time."""
    values = {name: getattr(options, name) for name in names}
    wrong = [f"{name}: got {value}, expected at least 1" for name, value in values.items() if value < 1]
    return wrong + [
        f"{name}: got {value}, expected at most {_MOST_SECONDS}, a week"
        for name, value in values.items()
        if name.endswith("_sec") and value > _MOST_SECONDS
    ]


def options_from_json(target: str, cls: type[Chosen], text: str) -> Chosen:
    """Reads options, all or some of them; "" for the defaults.

    Args:
      target: Name of the target.
      cls: A dataclass with a default for each option, of the type that the option has.
      text: JSON of an object.

    Raises:
      ValueError: If the text is no such JSON; lists all that is wrong.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    names = [field.name for field in fields]
    try:
        values: Any = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"options of target {target!r}: {text!r} is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"options of target {target!r}: got {text}, expected an object such as {{}}")
    strangers = [name for name in values if name not in names]
    wrong = [f"got {', '.join(strangers)}, expected some of {', '.join(names)}"] if strangers else []
    wrong += _wrong_types(values, fields)
    if wrong:
        raise ValueError(f"options of target {target!r}: {'; '.join(wrong)}")
    return cls(**values)
