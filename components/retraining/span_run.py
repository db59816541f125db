"""A run of the pipeline on one span, as a process that does not outlive the scheduler's."""

import collections
import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence

from components.quantization.process_group import process_group
from components.retraining.decisions import CannotBeginError, Outcome
from components.retraining.ledger import Entry, Ledger
from components.retraining.scheduler import read_report

# Exit status of the command line for a mistake in what was asked.
_MISTAKE = 2
BUSY_STATUS = 75
"""That of a run that found another one at work in its root, EX_TEMPFAIL of sysexits.h."""
_LAST_LINES = 5


def run_span(command: Sequence[str], entry: Entry, ledger: Ledger, limit_s: float) -> Outcome:
    """Runs a command that reports into the entry's report file, and keeps what it prints.

    Args:
      command: The program and its arguments.
      entry: The span's, in state "running".
      ledger: Where the report and the log go.
      limit_s: How long it may take, in seconds, before it is killed.

    Returns:
      What it reported, or how it ended without a report.

    Raises:
      CannotBeginError: If it refused what it was asked, and blamed no examples and no component for it.
      ValueError: If another run is at work.
      OSError: If the program does not start.
    """
    last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
    timed_out = threading.Event()
    with (
        ledger.log_file(entry).open("w", encoding="utf-8") as log,
        process_group(command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process,
        _limit(process, limit_s, timed_out),
    ):
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            last.append(line.strip())
        status = process.wait()
    if report := read_report(ledger, entry):
        return Outcome(report=report)
    said = " ".join(filter(None, last)) or "nothing"
    if timed_out.is_set():
        return Outcome(report={}, error=f"killed after {limit_s:,.0f} s; its last words: {said}")
    if status in (_MISTAKE, BUSY_STATUS):
        kind = CannotBeginError if status == _MISTAKE else ValueError
        raise kind(f"the run of span {entry.span} cannot begin: {said}")
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return Outcome(report={}, error=f"ended with {how} and no report; its last words: {said}")


@contextlib.contextmanager
def _limit(process: "subprocess.Popen[str]", limit_s: float, timed_out: threading.Event) -> Iterator[None]:
    def stop() -> None:
        timed_out.set()
        process.terminate()

    timer = threading.Timer(limit_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
