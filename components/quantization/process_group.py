"""Programs in a process group of their own, none of which outlives an error."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def process_group(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """Starts a program, and kills it with all that it started if the block ends with an error, a timeout for one.

    Args:
      command: The program and its arguments.
      **options: Further arguments of `subprocess.Popen`; standard output is a pipe, of text.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, errors="replace", start_new_session=True, **options
    )
    try:
        yield process
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
