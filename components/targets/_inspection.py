"""Options of a target's inspection: the keyword arguments of its `inspect`, given as text."""

import inspect
import typing
from collections.abc import Mapping as Table
from types import NoneType, UnionType
from typing import Any

from components import targets

_BOOLEANS = {"true": True, "false": False}


def option_names(target: "targets.Target") -> tuple[str, ...]:
    """Returns the names of the options that the target's `inspect` takes."""
    parameters = inspect.signature(target.inspect).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY and _readable(_hints(target)[one.name]))


def values(target: "targets.Target", options: Table[str, str]) -> dict[str, Any]:
    """Returns options of a target's inspection as the values that they stand for.

    Args:
      target: The target.
      options: Texts by name.

    Raises:
      ValueError: If some are none of the target's; lists all that is wrong.

    >>> values(targets.load_target("edge_tpu"), {"compiler_version": "14.1", "min_runtime_version": "13"})
    {'compiler_version': '14.1', 'min_runtime_version': 13}
    """
    names, hints = option_names(target), _hints(target)
    found: dict[str, Any] = {}
    wrong = []
    for name, text in options.items():
        if name not in names:
            wrong.append(f"{name} is none of {', '.join(names) or 'them: it has none'}")
            continue
        try:
            found[name] = _value(text, hints[name])
        except ValueError:
            wrong.append(f"{name}: got {text!r}, expected {_described(hints[name])}")
    if wrong:
        raise ValueError(f"options of target {target.name!r}: {'; '.join(wrong)}")
    return found


def _hints(target: "targets.Target") -> dict[str, Any]:
    return typing.get_type_hints(target.inspect)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _readable(hint: Any) -> bool:
    return all(kind in (bool, int, float, str, NoneType) for kind in _kinds(hint))


def _value(text: str, hint: Any) -> Any:
    kinds = _kinds(hint)
    if NoneType in kinds and text == "none":
        return None
    if bool in kinds:
        if text not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text]
    return next(kind for kind in (int, float, str) if kind in kinds)(text)


def _described(hint: Any) -> str:
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a text", NoneType: "none"}
    return " or ".join(names[kind] for kind in _kinds(hint))
