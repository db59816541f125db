"""Whether a model runs where it will be served: loads, gives its golden outputs, is the same each time, and fits.

Nothing here trusts the file. What reads it in this process is bounded; interpreters run in processes of their own.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from components.evaluation import smoke_files
from components.evaluation.checks import fails, holds, within
from components.evaluation.smoke_process import KernelRun, Limits, ModelRun, run
from components.evaluation.smoke_settings import Smoke
from components.evaluation.verdict import Reason, Verdict
from components.quantization.contract import TFLITE_FILE

# Whose kernels are portable C++, and so the same on every machine; others choose by what the CPU has.
_PORTABLE = "reference"
# A constant, or the outputs of other examples, is as far from golden outputs as those vary, or farther. The kernels of
# ResNet8 differ by 0.15 of that, but by 86 of 255 steps in one output: no bound on single outputs would do.
_MOST_NOISE = 1.0


def smoke_test(directory: Path, smoke: Smoke, pushed: Path | None = None) -> Verdict:
    """Tests a model, and the file that is pushed in its stead; it is blessed if nothing was found.

    Args:
      directory: `tflite`, with `io_contract.json` and `golden_vectors.npz` beside it.
      smoke: What it must keep to.
      pushed: The directory that is pushed, if that is another. One of the same bytes needs no run of its own. A file
        with an op that was compiled for an accelerator cannot be run on a CPU: it is audited, and held against the
        contract and the budget. Any other is tested as the model is, with the same golden vectors.
    """
    if pushed is None:
        return smoke_tests([directory], smoke)[0]
    if smoke_files.same_files(pushed, directory):
        (verdict,) = smoke_tests([directory], smoke)
        return Verdict(reasons=(*verdict.reasons, smoke_files.of_same()))
    file = pushed / TFLITE_FILE
    if file.is_file() and smoke_files.is_compiled(file.read_bytes(), smoke.profile):
        (verdict,) = smoke_tests([directory], smoke)
        # What is refused is no measure of another file.
        further = smoke_files.of_compiled(pushed, directory, smoke) if verdict.blessed else ()
        return Verdict(reasons=(*verdict.reasons, *further))
    verdict, of_pushed = smoke_tests([directory, pushed], smoke)
    as_pushed = smoke_files.as_pushed(list(of_pushed.reasons))
    return Verdict(reasons=(*verdict.reasons, *as_pushed, *smoke_files.of_other(pushed, directory)))


def smoke_tests(directories: list[Path], smoke: Smoke) -> list[Verdict]:
    """Tests models as `smoke_test`, with one start of the process that runs them."""
    refused = [tuple(smoke_files.refusals(directory, smoke.profile)) for directory in directories]
    sound = [directory for directory, reasons in zip(directories, refused, strict=True) if not reasons]
    # Each twice: what two processes give must be the same too.
    runs = iter(run([directory for directory in sound for _ in range(2)], smoke.limits) if sound else ())
    verdicts = []
    for directory, reasons in zip(directories, refused, strict=True):
        if not reasons:
            size = within("file", (directory / TFLITE_FILE).stat().st_size, smoke.file_bytes)
            reasons = (size, *_of_runs(next(runs), next(runs), smoke))
        verdicts.append(Verdict(reasons=reasons))
    return verdicts


def arena_bytes(directory: Path, limits: Limits | None = None) -> int:
    """Returns the arena of the model in a directory, as `Smoke.arena_bytes` is meant, measured in a process of its own.

    Raises:
      ValueError: If it cannot be run.
    """
    (found,) = run([directory], limits or Limits(), "arena")
    if found.failure:
        raise ValueError(f"the arena of the model cannot be measured: {found.failure}")
    return found.arena_bytes


def _of_runs(first: ModelRun, second: ModelRun, smoke: Smoke) -> Iterator[Reason]:
    for one in (first, second):
        if one.failure:
            yield fails("run", "crashed" if one.ended else "refused", one.failure)
            return
        if one.unfit:
            yield from (fails("files", code, text) for code, text in one.unfit.items())
            return
    for name, made in first.kernels.items():
        if not made.repeats or made.digest != second.kernels[name].digest:
            where = "in another process" if made.repeats else "again"
            yield fails(
                f"{name} kernels", "nondeterministic", f"other outputs when it ran {where}, with {made.kernels}"
            )
            continue
        yield _of_kernels(name, made, smoke.max_lsb)
    yield within("arena", first.arena_bytes, smoke.arena_bytes)


def _of_kernels(name: str, made: KernelRun, max_lsb: float | None) -> Reason:
    """How far outputs are from golden ones: those of portable kernels from their own, others from the nearer."""
    steps, noise = ({golden: max(of.values()) for golden, of in each.items()} for each in (made.steps, made.noise))
    is_portable = name == _PORTABLE
    got, limit = (steps[_PORTABLE], 0.0) if is_portable else (min(steps.values()), max_lsb)
    text = f"at most {got:g} steps from golden outputs, twice the same, with {made.kernels}"
    if not is_portable and math.isfinite(got) and min(noise.values()) > _MOST_NOISE:
        text += f"; the difference is {min(noise.values()):.3g} times what golden outputs vary by, expected at most 1"
    elif math.isfinite(got) and (limit is None or got <= limit):
        return holds(f"{name} kernels", text, got, limit)
    return fails(f"{name} kernels", "golden" if is_portable else "kernels", text, got, limit)
