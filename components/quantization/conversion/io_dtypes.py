"""Which types the inputs and outputs of a converted model have, of all or by name."""

from collections.abc import Iterable, Mapping

from components.quantization.conversion import default_io_dtype, require_io_dtype
from components.quantization.schemes import QuantizationScheme

FLOAT = "float32"  # also of an integer model, where it is asked for


def require(io_dtype: str | Mapping[str, str] | None, scheme: QuantizationScheme) -> None:
    """Checks what was asked for, names aside.

    Raises:
      ValueError: If a type is none that a model of the scheme can have.
    """
    asked = io_dtype.values() if isinstance(io_dtype, Mapping) else [io_dtype] if io_dtype else []
    for dtype in asked:
        if dtype != FLOAT:
            require_io_dtype(dtype, scheme)


def by_name(
    io_dtype: str | Mapping[str, str] | None, scheme: QuantizationScheme, names: Iterable[str]
) -> dict[str, str]:
    """Returns the type of each input and output.

    Args:
      io_dtype: One type for all, types by name, or None for the usual one of the scheme.
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
