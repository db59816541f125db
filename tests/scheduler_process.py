"""Schedulers in processes of their own that are killed at every change of their ledger, and what is there afterwards.

Run as a program, this file makes the experiment below a directory and prints what came of each round, as JSON. In place
of a pipeline it runs `fake_run.py`, which does what the content of a span's file says.
"""

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.retraining import ledger as ledger_module
from components.retraining.decisions import Outcome
from components.retraining.ledger import Entry, Ledger
from components.retraining.policy import RetrainingPolicy
from components.retraining.scheduler import Scheduler
from components.retraining.span_run import run_span
from components.retraining.spans import SpanSource
from components.retraining.telling import Telling

FAKE_RUN = Path(__file__).with_name("fake_run.py")
POLICY = RetrainingPolicy(max_failures=2, max_interruptions=3, backoff_s=0.001, backoff_limit_s=0.001, run_limit_s=60)


def write_span(base: Path, span: int, behaviour: str) -> None:
    directory = base / "data" / f"span-{span}"
    directory.mkdir(parents=True)
    (directory / "part.tfrecord").write_text(behaviour)
    (directory / "_SUCCESS").touch()


def scheduler(base: Path, policy: RetrainingPolicy = POLICY) -> Scheduler:
    """A scheduler that appends whom it tells what to `base`/told."""
    ledger = Ledger(base / "spans")
    ledger.directory.mkdir(exist_ok=True)

    def run(entry: Entry) -> Outcome:
        file = base / "data" / f"span-{entry.span}" / "part.tfrecord"
        report = ledger.report_file(entry)
        command = [sys.executable, "-I", "-S", str(FAKE_RUN), str(file), str(base), str(report), str(os.getpid())]
        return run_span(command, entry, ledger, policy.run_limit_s)

    def tell(entries: Sequence[Entry], held: str) -> Iterator[Entry]:
        for entry in entries:
            with (base / "told").open("a") as file:
                file.write(json.dumps([entry.span, entry.decision, entry.state, held]) + "\n")
            yield entry

    source = SpanSource(pattern=f"{base}/data/span-{{SPAN}}/*.tfrecord")
    return Scheduler(source=source, policy=policy, ledger=ledger, run=run, telling=Telling({"test": tell}, policy))


def work(base: Path) -> None:
    """Handles all spans, as `schedule` does."""
    one = scheduler(base)
    with one.ledger.lock():
        one.recover()
        while one.step() or any(entry.state == "waiting" for entry in one.ledger.entries().values()):
            pass


def kill_at(point: int) -> None:
    """Lets this process kill itself before or after that change to a file of the ledger."""
    points = itertools.count()

    def change(real: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any) -> Any:
            if next(points) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments)
            if next(points) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return changed

    ledger_module.Path.replace = change(ledger_module.Path.replace)  # type: ignore[method-assign]


def in_a_process(task: Callable[[], None]) -> int:
    """Does that in a fork; returns its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        status = 1
        try:
            task()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(base: Path) -> dict[str, Any]:
    entries = Ledger(base / "spans").entries().values()
    return {
        "entries": [[entry.span, entry.state, entry.decision, entry.reason] for entry in entries],
        "begun": (base / "begun").read_text().split(),
        "ended": (base / "ended").read_text().split(),
        "told": [json.loads(line) for line in (base / "told").read_text().splitlines()],
    }


def main(base: Path) -> list[dict[str, Any]]:
    rounds = []
    for point in itertools.count():
        directory = base / str(point)
        for span, behaviour in enumerate(("push", "broken", "crash", "refuse"), start=1):
            write_span(directory, span, behaviour)

        def killed(directory: Path = directory, point: int = point) -> None:
            kill_at(point)
            work(directory)

        first = in_a_process(killed)
        second = in_a_process(lambda directory=directory: work(directory))
        rounds.append({"first": first, "second": second, **state(directory)})
        if first == 0:  # there are no more points
            return rounds
    raise AssertionError


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
