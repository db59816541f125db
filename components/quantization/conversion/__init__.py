"""From a trained Keras model or SavedModel to a TFLite file that is proved to be integer-only."""

IO_DTYPES = ("int8", "uint8")


def require_io_dtype(io_dtype: str) -> None:
    """Checks the type of a model's inputs and outputs; raises ValueError if it is none of `IO_DTYPES`."""
    if io_dtype not in IO_DTYPES:
        raise ValueError(f"io_dtype: got {io_dtype!r}, expected one of {', '.join(IO_DTYPES)}")
