"""Pushes in processes of their own that are killed, stopped, or run at once, and what is there afterwards.

Run as a program, this file makes an experiment below and prints what came of it, as JSON. Its main process never
touches the destination, which may be in an object store whose clients do not live through a fork; its children do.
"""

import itertools
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfx.dsl.io import fileio

from components import push_destination
from components.delivery.manifest import build_manifest
from components.push_destination import PushDestination

Json = dict[str, Any]
_CHANGES = ("makedirs", "open", "copy", "rename", "remove", "rmtree")


def fork(work: Callable[[], Any]) -> tuple[int, int]:
    """Does some work in a child; returns its id and a file that will hold what it came to, as JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    status = 1
    try:
        os.write(writer, json.dumps(work()).encode())
        status = 0
    finally:
        os._exit(status)


def join(child: int, reader: int) -> Any:
    """Waits for a child; returns what its work came to, None if it was killed."""
    with os.fdopen(reader) as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"a child ended with {status}"
    return json.loads(text) if status == 0 else None


def push(uri: str, directory: Path, abandoned_after_s: int = 3600) -> str:
    push_destination._ABANDONED_AFTER_S = abandoned_after_s
    manifest = build_manifest(directory, facts={}, run_id=directory.name, pushed_at=push_destination.utc_now())
    return PushDestination(uri).push(directory, manifest)


def interrupt(point: int, with_signal: int) -> None:
    """Lets this process send itself a signal at a point of its changes to files.

    There is one before each change, and one in the middle of those that are not made at once.
    """
    points = itertools.count()

    def changed(name: str) -> Callable[..., Any]:
        real = getattr(fileio, name)

        def change(*arguments: Any, **options: Any) -> Any:
            if name == "open" and "w" not in arguments[1]:
                return real(*arguments, **options)
            if next(points) == point:
                os.kill(os.getpid(), with_signal)
            if name in ("open", "copy", "rmtree") and next(points) == point:
                _half(name, *arguments)
                os.kill(os.getpid(), with_signal)
            return real(*arguments, **options)

        return change

    opened = fileio.open

    def _half(name: str, *arguments: str) -> None:
        if name == "copy":
            with opened(arguments[0], "rb") as source, opened(arguments[1], "wb") as partial:
                partial.write(source.read(1))
        elif name == "open":
            with opened(arguments[0], "w") as partial:
                partial.write("{")
        elif name == "rmtree":
            for directory, _, files in fileio.walk(arguments[0]):
                for file in files[:1]:
                    fileio.remove(os.path.join(directory, file))

    for name in _CHANGES:
        setattr(fileio, name, changed(name))


def state(uri: str) -> Json:
    """What is there: each version's problems, if it has a manifest, and what is left over."""
    destination = PushDestination(uri)
    names = [name.rstrip("/") for name in fileio.listdir(uri)]
    versions = [name for name in names if name not in ("latest", "history", ".incoming")]
    complete = [name for name in versions if fileio.exists(f"{uri}/{name}/manifest.json")]
    left = fileio.listdir(f"{uri}/.incoming") if fileio.exists(f"{uri}/.incoming") else []
    return {
        "latest": destination.latest(),
        "complete": sorted(complete),
        "problems": [problem for name in complete for problem in destination.problems(name)],
        "incomplete": sorted(set(versions) - set(complete)),
        "left": sorted(left),
        "history": [[entry.number, entry.action, entry.version] for entry in destination.history()],
    }


def _now(work: Callable[[], Any]) -> Any:
    return join(*fork(work))


def kill_at_changes(uri: str, every: int, old: Path, new: Path, other: Path) -> list[Json]:
    """Kills a push of `new` after one of `old` at a point; then repeats it, or not, then pushes `other`, an hour later.

    Args:
      uri: Where to; each round has a directory of its own.
      every: 1 for all points, 2 for every other, and so on.
      old: The model that is there.
      new: The model whose push is killed.
      other: One that comes later.
    """
    rounds: list[Json] = []
    for point in itertools.count(step=every):
        root = f"{uri}/{point}"

        def killed(root: str = root, point: int = point) -> str:
            push(root, old)
            interrupt(point, signal.SIGKILL)
            return push(root, new)

        def after(root: str = root) -> Json:
            found = {"killed": state(root), "new": push(root, new), "repeated": state(root)}
            return {**found, "other": push(root, other, abandoned_after_s=-1), "later": state(root)}

        def never_repeated(root: str = f"{root}-never-repeated") -> Json:
            push(root, other, abandoned_after_s=-1)
            return state(root)

        if _now(killed) is not None:  # there are no more points
            break
        _now(lambda killed=killed, root=root: killed(f"{root}-never-repeated"))
        rounds.append({**_now(after), "never_repeated": _now(never_repeated)})
    return rounds


def repeat_while_cleaning(uri: str, every: int, died: Path, other: Path) -> list[Json]:
    """Repeats a push that was killed while another, which removes what the first has left, is stopped at a point.

    Args:
      uri: Where to; each round has a directory of its own.
      every: 1 for all points, 2 for every other, and so on.
      died: The model whose push is killed as soon as its version is there, incomplete.
      other: One that was pushed before, and is again, an hour later.
    """

    def killed(root: str, point: int) -> None:
        push(root, other)
        interrupt(point, signal.SIGKILL)
        push(root, died)

    def cleaning(root: str, point: int) -> str:
        interrupt(point, signal.SIGSTOP)
        return push(root, other, abandoned_after_s=-1)

    def incomplete_after(point: int) -> list[str]:
        root = f"{uri}/killed-{point}"
        _now(lambda: killed(root, point))
        found: list[str] = _now(lambda: state(root))["incomplete"]
        return found

    deadly = next(filter(incomplete_after, itertools.count()))
    rounds: list[Json] = []
    for point in itertools.count(step=every):
        root = f"{uri}/{point}"
        _now(lambda root=root: killed(root, deadly))
        child = fork(lambda root=root, point=point: cleaning(root, point))
        if not os.WIFSTOPPED(os.waitpid(child[0], os.WUNTRACED)[1]):  # there are no more points
            os.close(child[1])
            return rounds
        repeated = _now(lambda root=root: push(root, died))
        os.kill(child[0], signal.SIGCONT)
        join(*child)
        rounds.append({"repeated": repeated, "state": _now(lambda root=root: state(root))})
    return rounds


def at_once(uri: str, every: int, first: Path, second: Path) -> list[Json]:
    """Pushes two models at the same moment, several times, while a consumer reads on and on."""
    rounds = []
    for number in range(0, 12, every):
        root, (waiting, start), (reading, stop) = f"{uri}/{number}", os.pipe(), os.pipe()

        def wait_and_push(directory: Path, root: str = root, waiting: int = waiting) -> str:
            os.read(waiting, 1)
            return push(root, directory)

        def consume(root: str = root, reading: int = reading) -> list[str]:
            destination, problems = PushDestination(root), []
            while not select.select([reading], [], [], 0)[0]:
                if latest := destination.latest():
                    problems += destination.problems(latest)
            return problems

        consumer = fork(consume)
        children = [fork(lambda directory=directory: wait_and_push(directory)) for directory in (first, second)]
        os.write(start, b"12")
        pushed = [join(*child) for child in children]
        os.write(stop, b"1")
        rounds.append({"pushed": pushed, "read": join(*consumer), "state": _now(lambda root=root: state(root))})
        for pipe in (waiting, start, reading, stop):
            os.close(pipe)
    return rounds


def stop_and_continue(uri: str, every: int, slow: Path, fast: Path) -> list[Json]:
    """Stops a push at some points, makes another meanwhile, and lets the first go on."""
    rounds = []
    for point in range(2, 36, 4 * every):
        root = f"{uri}/{point}"

        def stopped(root: str = root, point: int = point) -> str:
            interrupt(point, signal.SIGSTOP)
            return push(root, slow)

        child = fork(stopped)
        os.waitpid(child[0], os.WUNTRACED)
        meanwhile = _now(lambda root=root: push(root, fast))
        between = _now(lambda root=root: state(root))
        os.kill(child[0], signal.SIGCONT)
        pushed = [join(*child), meanwhile]
        rounds.append({"pushed": pushed, "between": between, "state": _now(lambda root=root: state(root))})
    return rounds


def stop_then_kill(uri: str, every: int, slow: Path, fast: Path) -> list[Json]:
    """As `stop_and_continue`, but the one that goes on is killed as soon as it has moved the pointer."""
    rounds = []
    for point in itertools.count(step=every):
        root = f"{uri}/{point}"

        def stopped(root: str = root, point: int = point) -> str:
            push(root, fast)
            interrupt(point, signal.SIGSTOP)
            rename = fileio.rename

            def renamed(source: str, destination: str, **options: Any) -> None:
                rename(source, destination, **options)
                if destination.endswith("/latest"):
                    os.kill(os.getpid(), signal.SIGKILL)

            fileio.rename = renamed
            return push(root, slow)

        child = fork(stopped)
        if not os.WIFSTOPPED(os.waitpid(child[0], os.WUNTRACED)[1]):  # there are no more points
            os.close(child[1])
            return rounds
        slowly = _now(lambda root=root: state(root))["history"]
        version = _now(lambda root=root: PushDestination(root).history()[0].version)
        _now(lambda root=root, version=version: PushDestination(root).rollback(version))
        between = _now(lambda root=root: state(root))
        os.kill(child[0], signal.SIGCONT)
        join(*child)
        rounds.append({"before": slowly, "between": between, "state": _now(lambda root=root: state(root))})
    return rounds


if __name__ == "__main__":
    experiment, destination, every, *directories = sys.argv[1:]
    print(json.dumps(globals()[experiment](destination, int(every), *map(Path, directories))))
