"""Drives Vela: what counts as success, and what is tried again."""

import dataclasses
import logging
import tempfile
from pathlib import Path

from components.targets import Attempt, CompileError
from components.targets._run import Run
from components.targets.ethos_u import compiled_file
from components.targets.ethos_u.failures import KINDS, classify
from components.targets.ethos_u.options import COMPILER, VelaOptions
from components.targets.ethos_u.program import MODEL, Vela

_LOGGER = logging.getLogger(__name__)

COMPILED = "compiled"
OUTPUT = f"{MODEL}_vela.tflite"
_LAST_LINES = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A compilation that succeeded.

    Attributes:
      run: The run that did.
      attempts: All runs, in order.
      version: Vela's version; "" if it does not say.
    """

    run: Run
    attempts: tuple[Attempt, ...]
    version: str

    @property
    def tflite(self) -> bytes:
        """The compiled file."""
        return self.run.files[OUTPUT]


def drive(vela: Vela, options: VelaOptions, tflite: bytes, directory: Path | None = None) -> Outcome:
    """Compiles a model; once more without the table by layers if Vela fails at its statistics alone.

    Args:
      vela: Where Vela is.
      options: What it is asked for.
      tflite: The model.
      directory: Where to keep what each run wrote; None for nowhere.

    Raises:
      CompileError: If it fails; the text says why and what to do.
    """
    attempts: list[Attempt] = []
    outputs: list[str] = []
    for per_layer in (True, False):
        with tempfile.TemporaryDirectory(prefix="tfx-qat-") as work:
            run = vela.run(options, tflite, Path(work), per_layer=per_layer)
        kind = _failure(run)
        attempts.append(
            Attempt(command=run.command, seconds=run.seconds, exit_status=run.exit_status, outcome=kind or COMPILED)
        )
        outputs.append(run.output)
        _LOGGER.info("%s, attempt %d: %s after %.1f s", COMPILER, len(attempts), kind or COMPILED, run.seconds)
        if directory is not None:
            _keep(run, directory, len(attempts))
        if not kind:
            return Outcome(run=run, attempts=tuple(attempts), version=vela.version())
        if kind != "statistics":
            break
    ended = "was stopped" if run.exit_status is None else f"exited with {run.exit_status}"
    last = "\n".join(run.output.strip().splitlines()[-_LAST_LINES:]) or "(nothing)"
    raise CompileError(
        f"{KINDS[kind].sentence}: {' '.join(run.command)} {ended}. To do: {KINDS[kind].fix}. It said:\n{last}",
        kind=kind,
        log="\n".join(outputs),
        attempts=tuple(attempts),
    )


def _failure(run: Run) -> str:
    """Returns the kind of failure, "" for a success."""
    if run.exit_status != 0 or not run.files.get(OUTPUT):
        return classify(run.output, run.exit_status)
    try:
        compiled_file.npu_ops(run.files[OUTPUT])
    except ValueError:
        return "no_output"
    return ""


def _keep(run: Run, directory: Path, number: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"attempt_{number}.txt").write_text(run.output, errors="replace")
    for name, content in run.files.items():
        if name.endswith(".csv"):
            (directory / f"attempt_{number}_{name}").write_bytes(content)
