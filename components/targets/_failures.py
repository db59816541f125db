"""Why a run of a compiler failed: what compilers have in common."""

import contextlib
import dataclasses
import errno
import signal
from collections.abc import Iterator, Mapping

from components.targets import CompileError
from components.targets._run import Run

_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_NOT_STARTED = (126, 127)  # of a shell, or a script: what it was to start cannot be executed, or is not there
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_LAST_LINES = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of failure.

    Attributes:
      sentence: What happened.
      fix: What to do.
      is_flaky: Whether the same run may succeed: it is repeated.
      may_be_cut: Whether fewer ops may compile: a search for them is tried.
    """

    sentence: str
    fix: str
    is_flaky: bool = False
    may_be_cut: bool = False


def kind_of_exit(status: int | None) -> str:
    """Returns what an exit status says of a run: "out_of_memory", "crash", "broken_install", or "", which is nothing.

    >>> kind_of_exit(-9), kind_of_exit(128 + 11), kind_of_exit(127), kind_of_exit(1)
    ('out_of_memory', 'crash', 'broken_install', '')
    """
    if status in _KILLED:  # by nobody here: the kernel does that
        return "out_of_memory"
    if status in _NOT_STARTED:
        return "broken_install"
    return "crash" if status in {code for number in _CRASHES for code in (-number, 128 + number)} else ""


@contextlib.contextmanager
def explaining(what: str, kinds: Mapping[str, Kind], otherwise: str) -> Iterator[None]:
    """Turns what the system refuses within the block into a CompileError.

    Args:
      what: A program that is started, or a directory that is written.
      kinds: The target's kinds of failure.
      otherwise: The kind of an error that is not of a full disk or memory.
    """
    try:
        yield
    except OSError as error:
        kind = {errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.ENOMEM: "out_of_memory"}.get(
            error.errno or 0, otherwise
        )
        raise CompileError(f"{what}: {kinds[kind].sentence} ({error}). To do: {kinds[kind].fix}", kind=kind) from error


def how_it_ended(run: Run | None) -> str:
    """Returns how a run ended, in words."""
    if run is None:
        return "was not started"
    return "was stopped" if run.exit_status is None else f"exited with {run.exit_status}"


def last_lines(output: str) -> str:
    """Returns the last lines of what a compiler wrote."""
    return "\n".join(output.strip().splitlines()[-_LAST_LINES:]) or "(nothing)"
