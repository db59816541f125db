"""Drives Vela: what counts as success, and what is tried again."""

import dataclasses
import logging
from pathlib import Path

from components.targets import Attempt, CompileError
from components.targets._compile_error import telling
from components.targets._compiled_file import compiled_parts
from components.targets._directories import keep, require_writable, work_directory
from components.targets._failures import how_it_ended, last_lines
from components.targets._run import Run
from components.targets.ethos_u.failures import KINDS, classify
from components.targets.ethos_u.options import COMPILER, CUSTOM_OP, VelaOptions
from components.targets.ethos_u.program import MODEL, Vela

_LOGGER = logging.getLogger(__name__)

COMPILED = "compiled"
OUTPUT = f"{MODEL}_vela.tflite"


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
    if directory is not None:
        require_writable(directory, KINDS)
    attempts: list[Attempt] = []
    outputs: list[str] = []
    with telling(attempts, outputs):
        for per_layer in (True, False):
            with work_directory(KINDS) as work:
                run = vela.run(options, tflite, work, per_layer=per_layer)
            kind = _failure(run)
            attempts.append(
                Attempt(command=run.command, seconds=run.seconds, exit_status=run.exit_status, outcome=kind or COMPILED)
            )
            outputs.append(run.output)
            _LOGGER.info("%s, attempt %d: %s after %.1f s", COMPILER, len(attempts), kind or COMPILED, run.seconds)
            if directory is not None:
                keep(run, len(attempts), directory, ".csv", KINDS)
            if not kind:
                return Outcome(run=run, attempts=tuple(attempts), version=vela.version())
            if kind != "statistics":
                break
        raise CompileError(
            f"{KINDS[kind].sentence}: {' '.join(run.command)} {how_it_ended(run)}. To do: {KINDS[kind].fix}. It"
            f" said:\n{last_lines(run.output)}",
            kind=kind,
        )


def _failure(run: Run) -> str:
    """Returns the kind of failure, "" for a success."""
    if run.exit_status != 0 or not run.files.get(OUTPUT):
        return classify(run.output, run.exit_status)
    try:
        parts = compiled_parts(run.files[OUTPUT], CUSTOM_OP)
    except ValueError:
        return "no_output"
    return "" if parts else "nothing_mapped"
