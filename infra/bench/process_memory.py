"""Memory of processes and of all that they started, as Linux counts it in /proc."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

_INTERVAL_S = 0.25


@dataclasses.dataclass(kw_only=True, slots=True)
class PeakMemory:
    """The most memory that was seen.

    Attributes:
      largest_bytes: Of one process.
      together_bytes: Of all processes at one time; what they share is counted for each.
    """

    largest_bytes: int = 0
    together_bytes: int = 0


@contextlib.contextmanager
def peak_memory_below(process_id: int) -> Iterator[PeakMemory]:
    """Looks at the descendants of a process, four times a second, until the block ends."""
    peak, ended = PeakMemory(), threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL_S):
            resident = list(_resident_bytes_below(process_id))
            peak.largest_bytes = max(peak.largest_bytes, *resident, 0)
            peak.together_bytes = max(peak.together_bytes, sum(resident))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def reset_peak() -> None:
    """Makes Linux count the peak of this process anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Returns the peak of this process's resident memory since `reset_peak`, or since it began."""
    return _status(Path("/proc/self"))["VmHWM"] * 1024


def resident_bytes() -> int:
    """Returns this process's resident memory."""
    return _status(Path("/proc/self"))["VmRSS"] * 1024


def _resident_bytes_below(process_id: int) -> Iterator[int]:
    parents, resident = {}, {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError, ValueError):
            status = _status(directory)
            parents[int(directory.name)] = status["PPid"]
            resident[int(directory.name)] = status.get("VmRSS", 0) * 1024  # a process that has ended has none
    for one in parents:
        ancestor: int | None = one
        while ancestor := parents.get(ancestor or 0):
            if ancestor == process_id:
                yield resident[one]
                break


def _status(directory: Path) -> dict[str, int]:
    """The numbers of /proc/PID/status by name, memory in kB."""
    fields = (line.split(":", 1) for line in (directory / "status").read_text().splitlines())
    return {name: int(words[0]) for name, text in fields if (words := text.split()) and words[0].isdigit()}
