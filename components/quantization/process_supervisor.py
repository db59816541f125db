"""Runs a program, ends as it ends, and leaves nothing that it started: a process between `process_group` and a program.

It is a process of its own since only an ancestor can adopt what a program leaves behind in other sessions, and since it
outlives the process that asked for it, however that ends. Run as a script with the standard library alone; Linux only.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

# https://github.com/torvalds/linux/blob/v6.6/include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.2  # how often to look whether the parent is still there
_BRIEFLY_S = 60
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def main(parent: int, report: int, command: list[str], if_orphaned: list[str]) -> int:
    """Runs the program until it ends, SIGTERM comes, or the parent is gone; then kills all that is left.

    Args:
      parent: Id of the process that asks.
      report: A pipe for the error number if the program does not start; is closed if it does.
      command: The program and its arguments.
      if_orphaned: What to run at the end if the parent is gone; empty for nothing.

    Returns:
      What the program ended with, as `os.waitstatus_to_exitcode` gives it.
    """
    os.set_inheritable(report, False)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))
    wanted = {signal.SIGCHLD, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    program = os.fork()
    if program == 0:
        # Sound here, where the parent has one thread: the signal comes when the thread that forked ends.
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        _become(command, report, before)
    os.close(report)
    ended: dict[int, int] = {}
    while program not in ended and os.getppid() == parent:
        received = signal.sigtimedwait(wanted, _POLL_S)
        if received and received.si_signo == signal.SIGTERM:
            break
        _reap(ended)
    _kill_all(ended)
    if if_orphaned and os.getppid() != parent:
        _run_briefly(if_orphaned)
    return os.waitstatus_to_exitcode(ended[program])


def _become(command: list[str], report: int, mask: set[int]) -> None:
    """In the fork: becomes the program, in a process group of its own, or reports why not."""
    try:
        os.setpgid(0, 0)
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(report, str(error.errno).encode())
    finally:
        os._exit(127)


def _reap(ended: dict[int, int]) -> None:
    """Notes the status of children that ended, those that were adopted among them."""
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not child:
            return
        ended[child] = status


def _kill_all(ended: dict[int, int]) -> None:
    """Kills children until there are none: those of a killed one become this process's own."""
    while True:
        for child in _children():
            with contextlib.suppress(PermissionError):  # it took other rights; the parent does not wait for ever
                os.kill(child, signal.SIGKILL)
        try:
            child, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        ended[child] = status


def _run_briefly(command: list[str]) -> None:
    nothing = subprocess.DEVNULL
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # there is nobody to tell
        subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=_BRIEFLY_S, check=False)


def _children() -> list[int]:
    """Ids of this process's children, dead ones that were not waited for among them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # another's process, which ended meanwhile
        if int(after_name[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def _end_as(status: int) -> None:
    """Ends this process with that status, by a signal if it is negative."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if -status in (signal.SIGINT, *_IGNORED_BY_PYTHON):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status % 256 if status >= 0 else 128 - status)


if __name__ == "__main__":
    _end_as(main(int(sys.argv[1]), int(sys.argv[2]), *json.loads(sys.argv[3])))
