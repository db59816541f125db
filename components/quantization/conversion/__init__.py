"""From a trained Keras model or SavedModel to a TFLite file that is proved to be integer-only."""

from components.quantization.schemes import QuantizationScheme

# Types of a model's inputs and outputs by the bits of its activations, the usual one first. 32 bits are floats.
_IO_DTYPES_BY_BITS = {8: ("int8", "uint8"), 16: ("int16",), 32: ("float32",)}
IO_DTYPES = tuple(dtype for dtypes in _IO_DTYPES_BY_BITS.values() for dtype in dtypes)


def default_io_dtype(scheme: QuantizationScheme) -> str:
    """Returns the usual type of the inputs and outputs of a model of that scheme."""
    return _IO_DTYPES_BY_BITS[scheme.activation_bits][0]


def require_io_dtype(io_dtype: str, scheme: QuantizationScheme | None = None) -> None:
    """Checks the type of a model's inputs and outputs.

    Args:
      io_dtype: The type.
      scheme: The scheme that it must fit; None for any.

    Raises:
      ValueError: If it is none of `IO_DTYPES`, or none of those of the scheme.
    """
    allowed = IO_DTYPES if scheme is None else _IO_DTYPES_BY_BITS[scheme.activation_bits]
    if scheme is not None and len(scheme.all_activation_bits) > 1:  # those of 16 bits are int16 all the same
        allowed = allowed[:1]
    if io_dtype not in allowed:
        whose = "" if scheme is None else f" with scheme {scheme.name!r}"
        raise ValueError(f"io_dtype: got {io_dtype!r}, expected one of {', '.join(allowed)}{whose}")
