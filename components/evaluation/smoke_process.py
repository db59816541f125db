"""Runs TFLite models, each in a process of its own, which may end as it will: `run`, and the process that it starts.

TensorFlow is imported once, by a process that then forks for each model. A hostile file can make an interpreter
segfault, abort, never end, or take memory without end; that ends the fork, and is what is found of the model.
"""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from components.evaluation.verdict import Code
from components.quantization.process_group import environment_of_modules, process_group

Work = Literal["golden", "arena", "probe"]

# To start a process and import TensorFlow, on a busy machine.
_START_S = 120
_POLL_S = 0.005
_LOG_CHARACTERS = 500


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a run of a model may take.

    Attributes:
      seconds: Of wall-clock time.
      memory_bytes: Of address space beyond that of the process before it loads the model.
    """

    seconds: float = 60.0
    memory_bytes: int = 2**31


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KernelRun:
    """What a model did with one set of kernels.

    Attributes:
      kernels: In words.
      repeats: Whether it gave the same bits when it ran again.
      digest: sha256 of its outputs.
      steps: The largest difference of each output from the golden one, in steps of its integers (of floats, in float32
        steps): by name of the kernels that the golden one is of, then by output.
      noise: The root of the mean square of that difference, as a multiple of the standard deviation of all golden
        values of the output, or of one of 256 parts of what the output can be if that is more; as `steps`.
    """

    kernels: str
    repeats: bool
    digest: str
    steps: Mapping[str, Mapping[str, float]]
    noise: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelRun:
    """What came of a run.

    Attributes:
      ended: "" if the process ended as it should, else how it ended, with what it said last.
      refused: Why the interpreter refused the model; "" if it did not.
      unfit: Why it was not run on its golden vectors, by the code of the reason; empty if it could be.
      kernels: By name of the kernels.
      arena_bytes: What the interpreter's own kernels take for activations and scratch, and for states; 0 if it did not
        come so far.
      inputs: Shapes of the inputs by name, where it was probed.
      outputs: Shapes of the outputs by name, where it was probed.
    """

    ended: str = ""
    refused: str = ""
    unfit: Mapping[Code, str] = dataclasses.field(default_factory=dict)
    kernels: Mapping[str, KernelRun] = dataclasses.field(default_factory=dict)
    arena_bytes: int = 0
    inputs: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)

    @property
    def failure(self) -> str:
        """Why the model cannot be run, in words; "" if it can."""
        return f"the process that ran the model {self.ended}" if self.ended else self.refused


def run(directories: Sequence[Path], limits: Limits, work: Work = "golden") -> list[ModelRun]:
    """Runs the model of each directory in a fork of its own.

    Args:
      directories: Each with `tflite`, and, to be run, `io_contract.json` and `golden_vectors.npz` that fit it.
      limits: Of each run.
      work: "golden" runs it on its golden vectors, with each set of kernels, twice; "arena" only loads it, and measures
        its arena; "probe" loads and runs it as an evaluation does, on features that are made up.

    Raises:
      RuntimeError: If the process that forks ends, which no model can make it do.
    """
    requests = "".join(
        json.dumps({"directory": str(directory.resolve()), "work": work, "limits": dataclasses.asdict(limits)}) + "\n"
        for directory in directories
    )
    environment = {
        **environment_of_modules(),
        # A process that forks should have one thread.
        **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
    }
    command = [sys.executable, "-W", "ignore", "-m", __name__]
    with process_group(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        answers, log = process.communicate(requests, timeout=_START_S + len(directories) * (limits.seconds + 1))
    found = [_model_run(json.loads(line)) for line in answers.splitlines()]
    if process.returncode or len(found) != len(directories):
        raise RuntimeError(f"the process that runs models ended with {process.returncode}: {log[-_LOG_CHARACTERS:]}")
    return found


def _model_run(answer: dict[str, Any]) -> ModelRun:
    kernels = {name: KernelRun(**one) for name, one in answer.pop("kernels", {}).items()}
    return ModelRun(kernels=kernels, **answer)


def _serve() -> None:
    """Answers requests, one a line, in order."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what TensorFlow prints is no answer
    from components.evaluation import golden_run

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        work = golden_run.WORK[request["work"]]
        with tempfile.TemporaryDirectory(prefix="tfx-qat-") as place:
            answer = forked(work, Path(request["directory"]), Limits(**request["limits"]), Path(place))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def forked(function: Any, directory: Path, limits: Limits, place: Path) -> dict[str, Any]:
    """Calls a function of a directory in a fork of this process.

    Args:
      function: Returns what JSON can hold.
      directory: Its argument.
      limits: Of the fork.
      place: An empty directory for its answer.

    Returns:
      What it returned; {"refused": ...} if it raised an error, {"ended": ...} if the fork ended otherwise.
    """
    answer, log = place / "answer.json", place / "log"
    child = os.fork()
    if child == 0:
        _run_and_leave(function, directory, limits, (answer, log))
    deadline = time.monotonic() + limits.seconds
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    late = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    if late:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if late:
        return {"ended": f"did not end within {limits.seconds:g} s"}
    if status:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
        said = " ".join(log.read_text(errors="replace").split())[-_LOG_CHARACTERS:] if log.exists() else ""
        return {"ended": f"{how}: {said}" if said else how}
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def _run_and_leave(function: Any, directory: Path, limits: Limits, files: tuple[Path, Path]) -> None:
    """In the fork: runs, writes the answer, and ends without what a process does at its end."""
    answer, log = files
    status = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            found = function(directory)
        except (ValueError, RuntimeError, MemoryError, KeyError, TypeError, IndexError, OSError) as error:
            found = {"refused": str(error) or type(error).__name__}
        answer.write_text(json.dumps(found))
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
