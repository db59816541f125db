"""How a Beam pass says that the last blessed model made it fail, which need not be: the others are evaluated then."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

_UNUSABLE = "the last blessed model cannot be run with the transform that it was made with"
# What another try may mend is nobody's fault.
_TRANSIENT = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
    ConnectionError,
    TimeoutError,
)
# Beam adds to the text of an error: behind it, and where it comes from another process before it too.
_WHY_UNUSABLE = re.compile(rf"{_UNUSABLE}: (.*?)(?: \[while running|\\n|\n|$)")


@contextlib.contextmanager
def run_of_last_blessed() -> Iterator[None]:
    """Says of an error in the block that the last blessed model has caused it, for `why_unusable` to read.

    Not of one that may be gone the next time, as of a storage that does not answer.
    """
    try:
        yield
    except _TRANSIENT:
        raise
    except (ValueError, KeyError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ValueError(f"{_UNUSABLE}: {str(error).partition(chr(10))[0]}") from error


def why_unusable(error: Exception) -> str:
    """Returns why the last blessed model cannot be run, in a few words; "" if a pass failed of something else.

    Args:
      error: What Beam raised, which may be of another type and have a longer text than what a worker did.

    >>> with contextlib.suppress(ValueError), run_of_last_blessed():
    ...     raise OSError("gone")
    >>> why_unusable(RuntimeError(f"Traceback ... ValueError: {_UNUSABLE}: gone [while running 'Predict']"))
    'its own transform: gone'
    """
    found = _WHY_UNUSABLE.search(str(error))
    return f"its own transform: {found[1]}" if found else ""
