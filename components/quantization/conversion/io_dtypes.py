"""Which types the inputs and outputs of a converted model have, of all or by name."""

import json
from collections.abc import Iterable, Mapping

from components.quantization.conversion import default_io_dtype, require_io_dtype
from components.quantization.schemes import QuantizationScheme

FLOAT = "float32"  # also of an integer model, where it is asked for

# One type for all, types by name of the input or output, or None or "" for the usual one of the scheme.
IoDtype = str | Mapping[str, str] | None


def as_text(io_dtype: IoDtype) -> str:
    """Returns what `from_text` reads, the same for the same types: a component's parameters are texts.

    >>> as_text({"scores": "int8", "image": "uint8"})
    '{"image": "uint8", "scores": "int8"}'
    """
    return json.dumps(dict(io_dtype), sort_keys=True) if isinstance(io_dtype, Mapping) else io_dtype or ""


def from_text(text: str) -> IoDtype:
    """Returns what was asked for, None for "".

    >>> from_text("uint8"), from_text(""), from_text('{"image": "uint8"}')
    ('uint8', None, {'image': 'uint8'})
    """
    return dict(json.loads(text)) if text.startswith("{") else text or None


def require(io_dtype: IoDtype, scheme: QuantizationScheme | None) -> None:
    """Checks what was asked for, names aside.

    Args:
      io_dtype: What was asked for.
      scheme: The scheme that it must fit; None for any.

    Raises:
      ValueError: If a type is none that a model of the scheme can have.
    """
    asked = io_dtype.values() if isinstance(io_dtype, Mapping) else [io_dtype] if io_dtype else []
    for dtype in asked:
        if dtype != FLOAT:
            require_io_dtype(dtype, scheme)


def require_real(io_dtype: IoDtype, own: Mapping[str, str]) -> None:
    """Checks what was asked for by name against what the model computes.

    Args:
      io_dtype: One type for all, which integers of their own are left out of, types by name, or None.
      own: The model's own types by name.

    Raises:
      ValueError: If another type is asked for what is no real value, such as an index.
    """
    asked = io_dtype if isinstance(io_dtype, Mapping) else {}
    fixed = [
        f"{name} {dtype}"
        for name, dtype in own.items()
        if not dtype.startswith(("float", "bfloat")) and asked.get(name, dtype) != dtype
    ]
    if fixed:
        raise ValueError(f"io_dtype: got other types for {', '.join(fixed)}, which stay as they are; leave them out")


def by_name(io_dtype: IoDtype, scheme: QuantizationScheme, names: Iterable[str]) -> dict[str, str]:
    """Returns the type of each input and output.

    Args:
      io_dtype: What was asked for.
      scheme: The scheme.
      names: The inputs and outputs.

    Raises:
      ValueError: If it names what is neither.

    >>> from components.quantization.schemes import load_scheme
    >>> by_name({"image": "uint8"}, load_scheme("full_int8"), ["image", "scores"])
    {'image': 'uint8', 'scores': 'int8'}
    """
    names = tuple(names)
    usual = default_io_dtype(scheme)
    if not isinstance(io_dtype, Mapping):
        return dict.fromkeys(names, io_dtype or usual)
    unknown = [name for name in io_dtype if name not in names]
    if unknown:
        raise ValueError(
            f"io_dtype: got types for {', '.join(unknown)}, expected inputs or outputs of the model: {', '.join(names)}"
        )
    return {name: io_dtype.get(name, usual) for name in names}
