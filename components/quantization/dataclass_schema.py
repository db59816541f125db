"""The JSON schema of a dataclass, from its annotations: written once, it cannot differ from the class."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def schema_of(cls: type) -> dict[str, object]:
    """Returns the schema of a whole document, which is what `of_dataclass` describes."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **of_dataclass(cls)}


def of_dataclass(cls: type) -> dict[str, object]:
    """Returns the schema of `dataclasses.asdict` of a dataclass, as JSON.

    Raises:
      TypeError: If a field is of a type that no schema is known for.

    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: int
    ...     name: str | None
    >>> of_dataclass(Point)["properties"]
    {'x': {'type': 'integer'}, 'name': {'anyOf': [{'type': 'string'}, {'type': 'null'}]}}
    """
    hints = typing.get_type_hints(cls)
    properties = {field.name: _of_type(hints[field.name]) for field in dataclasses.fields(cls)}
    return {
        "title": cls.__name__,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _of_type(hint: Any) -> dict[str, object]:
    if hint is Any:
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if dataclasses.is_dataclass(hint):
        return of_dataclass(typing.cast(type, hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of_type(argument) for argument in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[1:] == (...,):
        return {"type": "array", "items": _of_type(arguments[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of_type(arguments[1])}
    raise TypeError(f"no JSON schema for {hint}")
