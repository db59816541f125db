"""Drives edgetpu_compiler: what counts as success, what is tried again, and what is tried instead."""

import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from components.targets import Attempt, CompileError
from components.targets._compile_error import telling
from components.targets._compiled_file import compiled_parts
from components.targets._directories import keep, require_writable, work_directory
from components.targets._failures import how_it_ended, last_lines
from components.targets._run import Run
from components.targets.edge_tpu.failures import KINDS, classify, detail
from components.targets.edge_tpu.log import CompilerLog, parse
from components.targets.edge_tpu.options import COMPILER, CUSTOM_OP, CompilerOptions
from components.targets.edge_tpu.program import Program

_LOGGER = logging.getLogger(__name__)

COMPILED = "compiled"
_GRACE_S = 60  # what the compiler may take beyond its own timer
_FIRST_WITH_LAST_WORD = 16  # the generation that ends with "Compilation succeeded!"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A compilation that succeeded.

    Attributes:
      run: The run that did.
      log: What was read of its output.
      attempts: All runs, in order.
    """

    run: Run
    log: CompilerLog
    attempts: tuple[Attempt, ...]


def drive(
    program: Program, options: CompilerOptions, models: Mapping[str, bytes], directory: Path | None = None
) -> Outcome:
    """Compiles models together: repeats what failed without a reason, then searches for the part that compiles.

    Args:
      program: The compiler.
      options: What it is asked for.
      models: The models by file name, in the order in which they are to get the Edge TPU's memory.
      directory: Where to keep what each run wrote; None for nowhere.

    Raises:
      CompileError: If nothing that was tried succeeds; the text says why and what to do.
    """
    return _Ladder(program, options, models, directory).climb()


class _Ladder:
    """The attempts of one compilation, within one budget of time."""

    def __init__(
        self, program: Program, options: CompilerOptions, models: Mapping[str, bytes], directory: Path | None
    ) -> None:
        self._program, self._options, self._models, self._directory = program, options, models, directory
        self._deadline = time.monotonic() + options.budget_sec
        if directory is not None:
            require_writable(directory, KINDS)
        version = program.version()
        self._major = int(version.partition(".")[0]) if version else _FIRST_WITH_LAST_WORD
        self._attempts: list[Attempt] = []
        self._outputs: list[str] = []

    def climb(self) -> Outcome:
        """Returns the first success.

        Raises:
          CompileError: If there is none, with all attempts.
        """
        with telling(self._attempts, self._outputs):
            return self._climb()

    def _climb(self) -> Outcome:
        kind, run = "", None
        rungs = self._rungs()
        for number, (options, repeats) in enumerate(rungs):
            for _ in range(repeats):
                limit_s = self._limit(options, len(rungs) - number)
                if limit_s <= 0:
                    raise self._error(kind or "timeout", run, "the budget of time is spent")
                run = self._run(options, limit_s)
                log = parse(run.output)
                kind = self._failure(run, log, options)
                self._keep(run, kind)
                if not kind:
                    return Outcome(run=run, log=log, attempts=tuple(self._attempts))
                if not KINDS[kind].is_flaky:
                    break
            if not KINDS[kind].may_be_cut:
                break
        raise self._error(kind, run)

    def _rungs(self) -> list[tuple[CompilerOptions, int]]:
        """What is tried in turn, and how often."""
        options = self._options
        fixed = options.search_delegate or options.intermediate_tensors or options.num_segments > 1
        steps = () if fixed or len(self._models) > 1 or self._major < _FIRST_WITH_LAST_WORD else options.search_steps
        return [(options, options.attempts), *((options.searching(step), 1) for step in steps)]

    def _limit(self, options: CompilerOptions, rungs: int) -> float:
        """Time for one run; searches share what is left among them, so that one without end does not stop the others.

        The compiler's own timer is of each attempt of a search, of which there may be many.
        """
        left = self._deadline - time.monotonic()
        if options.search_delegate:
            return left / rungs
        return min(left, options.timeout_sec * len(self._models) + _GRACE_S)

    def _run(self, options: CompilerOptions, limit_s: float) -> Run:
        with work_directory(KINDS) as directory:
            return self._program.run(options.arguments(self._major), self._models, limit_s, directory)

    def _failure(self, run: Run, log: CompilerLog, options: CompilerOptions) -> str:
        """Returns the kind of failure, "" for a success. No sign of success is one on its own."""
        names = output_names(self._models, options.num_segments)
        if run.exit_status != 0 or not all(run.files.get(name) for name in names):
            return classify(log, run.output, run.exit_status, in_container=bool(self._program.image))
        try:
            mapped = [compiled_parts(run.files[name], CUSTOM_OP) > 0 for name in names]
        except ValueError:
            return "no_output"
        if not all(mapped):
            return "nothing_mapped"
        version = log.compiler_version or ""
        said_all = "Compilation succeeded!" in log.notes or (version and int(version.partition(".")[0]) < 16)
        return "" if log.succeeded and log.compile_ms is not None and said_all else "no_success_message"

    def _keep(self, run: Run, kind: str) -> None:
        self._attempts.append(
            Attempt(command=run.command, seconds=run.seconds, exit_status=run.exit_status, outcome=kind or COMPILED)
        )
        self._outputs.append(run.output)
        number = len(self._attempts)
        _LOGGER.info("%s, attempt %d: %s after %.1f s", COMPILER, number, kind or COMPILED, run.seconds)
        if self._directory is not None:
            keep(run, number, self._directory, ".log", KINDS)

    def _error(self, kind: str, run: Run | None, why_no_more: str = "") -> CompileError:
        output = run.output if run else ""
        named = detail(kind, output)
        what = f"{KINDS[kind].sentence}{f' ({named})' if named else ''}"
        tried = f", attempt {len(self._attempts)}" if len(self._attempts) > 1 else ""
        command = " ".join(run.command) if run else COMPILER
        more = f"; {why_no_more}" if why_no_more else ""
        return CompileError(
            f"{what}: {command} {how_it_ended(run)}{tried}{more}. To do: {KINDS[kind].fix}. It said:\n"
            f"{last_lines(output)}",
            kind=kind,
        )


def output_names(models: Mapping[str, bytes], num_segments: int = 1) -> tuple[str, ...]:
    """Returns the names of the files that the compiler makes.

    >>> output_names({"a.tflite": b""}, 2)
    ('a_segment_0_of_2_edgetpu.tflite', 'a_segment_1_of_2_edgetpu.tflite')
    """
    stems = [Path(name).stem for name in models]
    if num_segments > 1:
        stems = [f"{stem}_segment_{i}_of_{num_segments}" for stem in stems for i in range(num_segments)]
    return tuple(f"{stem}_edgetpu.tflite" for stem in stems)
