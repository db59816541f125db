"""Shows a run component by component, and keeps its full log in a file."""

import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

# What LocalDagRunner and BeamDagRunner log, and the launcher that both use.
_RUNNING = re.compile(r"(?:Component|node) (\S+) is running\.")
_FINISHED = re.compile(r"(?:Component|node) (\S+) is finished\.")
_CACHED = "A cached execution"


class Progress(logging.Handler):
    """Turns TFX's log into one line per component.

    Attributes:
      current: The component that runs now, or ran last.
    """

    def __init__(self, console: Console, name_width: int = 20) -> None:
        """Shows on the console, names of components in so many columns."""
        super().__init__(logging.INFO)
        self.current = ""
        self._console = console
        self._name_width = name_width
        self._status = console.status("starting")
        self._cached = False
        self._started_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Shows what a record says about a component; ignores the others."""
        message = record.getMessage()
        if running := _RUNNING.match(message):
            self.current, self._cached, self._started_s = running.group(1), False, time.monotonic()
            self._status.update(f"{self.current} is running")
            self._status.start()
        elif message.startswith(_CACHED):
            self._cached = True
        elif finished := _FINISHED.match(message):
            seconds = time.monotonic() - self._started_s
            how = "from cache" if self._cached else f"{seconds:6.1f} s"
            self._console.print(f"[green]done[/green]  {finished.group(1):<{self._name_width}} {how}", highlight=False)

    def stop(self) -> None:
        """Ends the display of what is running."""
        self._status.stop()


@contextlib.contextmanager
def quiet(log_file: Path) -> Iterator[Console]:
    """Sends this process's standard error and all logging to a file; gives a console on the real standard output.

    TensorFlow, Beam and TFX write thousands of lines, some from C++, past Python's logging.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    console = Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w"))
    root = logging.getLogger()
    level = root.level
    with log_file.open("ab", buffering=0) as log, log_file.open("a") as text, stderr_to(log.fileno()):
        handler = logging.StreamHandler(text)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            yield console
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            console.file.close()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Drops standard error: TensorFlow and TFX write to it when they are imported, past all of their settings."""
    with open(os.devnull, "w") as nowhere, stderr_to(nowhere.fileno()):
        yield


@contextlib.contextmanager
def stderr_to(descriptor: int) -> Iterator[None]:
    """Redirects standard error below Python, so that C++ is redirected too."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def watch(handler: logging.Handler) -> None:
    """Lets a handler see what TFX logs, by absl, whose own handler would write every line a second time."""
    import absl.logging

    absl.logging.set_verbosity(absl.logging.INFO)
    logger = absl.logging.get_absl_logger()
    logger.removeHandler(absl.logging.get_absl_handler())
    logger.addHandler(handler)
