"""The error of a compilation that failed."""

import contextlib
from collections.abc import Iterator, Sequence

from components.targets._report import Attempt


class CompileError(RuntimeError):
    """The target's compiler failed; the message has its command, exit status and last lines, and what to do.

    Attributes:
      kind: The kind of failure, one of the target's; "" where it has none.
      log: All that the compiler wrote, verbatim, of every attempt.
      attempts: Runs of the compiler, in order.
    """

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.log = ""
        self.attempts: tuple[Attempt, ...] = ()

    def add_line(self, text: str) -> None:
        """Adds a line to the message."""
        self.args = (f"{self}\n{text}",)


@contextlib.contextmanager
def telling(attempts: Sequence[Attempt], outputs: Sequence[str]) -> Iterator[None]:
    """Adds to a CompileError within the block what was run before it.

    Args:
      attempts: Runs so far, in order; may grow within the block.
      outputs: What each wrote.
    """
    try:
        yield
    except CompileError as error:
        error.attempts, error.log = tuple(attempts), "\n".join(outputs)
        raise
