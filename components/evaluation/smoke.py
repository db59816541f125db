"""Whether a model runs where it will be served: loads, gives its golden outputs, is the same each time, and fits.

Nothing here trusts the file. What reads it in this process is bounded; interpreters run in processes of their own.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from components.evaluation.smoke_process import Limits, ModelRun, run
from components.evaluation.verdict import Code, Reason, Verdict, holding
from components.quantization.contract import CONTRACT_FILE, TFLITE_FILE, VECTORS_FILE
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.audit import audit
from components.quantization.conversion.deployed_audit import float_edges, with_float_edges

_COMPILED_OP = "edgetpu-custom-op"
# Whose kernels are portable C++, and so the same on every machine; others choose by what the CPU has.
_PORTABLE = "reference"
_MOST_OFFENDERS = 3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Smoke:
    """What a model must keep to.

    Attributes:
      profile: Name of the target that the audit is for.
      file_bytes: Largest size of the file, and of the compiled one; None for any.
      arena_bytes: Largest arena; None for any. It is that of TFLite's own kernels for this CPU: activations, scratch
        and states. That of TFLite Micro is about as large, but laid out by another planner.
      max_lsb: Largest difference of an output from the golden one, in steps of its integers, with the kernels that
        depend on the CPU; None for any. They differ between CPUs, and from the reference kernels, from which any
        difference refuses a model.
      limits: Of each run.
    """

    profile: str
    file_bytes: int | None = None
    arena_bytes: int | None = None
    max_lsb: float | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raises ValueError for what nothing can keep to."""
        given = {"file_bytes": self.file_bytes, "arena_bytes": self.arena_bytes, "seconds": self.limits.seconds}
        wrong = [f"{name}={value}" for name, value in given.items() if value is not None and value <= 0]
        wrong += [f"max_lsb={self.max_lsb}"] if self.max_lsb is not None and self.max_lsb < 0 else []
        if wrong:
            raise ValueError(f"smoke test: got {', '.join(wrong)}, expected more than 0, for max_lsb 0 or more")

    def to_json(self) -> str:
        """Returns it as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Smoke":
        """Reads what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "limits": Limits(**fields["limits"])})


def smoke_test(directory: Path, smoke: Smoke, compiled: bytes | None = None) -> Verdict:
    """Tests a model; it is blessed if nothing was found.

    Args:
      directory: `tflite`, with `io_contract.json` and `golden_vectors.npz` beside it.
      smoke: What it must keep to.
      compiled: The file that was compiled of it for an accelerator, which no CPU can run: it is read, and its size
        held against that allowed. None if there is none.
    """
    (verdict,) = smoke_tests([directory], smoke)
    if compiled is None:
        return verdict
    return Verdict(reasons=(*verdict.reasons, *_of_compiled(compiled, smoke)))


def smoke_tests(directories: list[Path], smoke: Smoke) -> list[Verdict]:
    """Tests models as `smoke_test`, with one start of the process that runs them."""
    refused = [tuple(_before_it_runs(directory, smoke)) for directory in directories]
    sound = [directory for directory, reasons in zip(directories, refused, strict=True) if not reasons]
    # Each twice: what two processes give must be the same too.
    runs = iter(run([directory for directory in sound for _ in range(2)], smoke.limits) if sound else ())
    verdicts = []
    for directory, reasons in zip(directories, refused, strict=True):
        if not reasons:
            size = _within("file", (directory / TFLITE_FILE).stat().st_size, smoke.file_bytes)
            reasons = (size, *_of_runs(next(runs), next(runs), smoke))
        verdicts.append(Verdict(reasons=reasons))
    return verdicts


def arena_bytes(directory: Path, limits: Limits | None = None) -> int:
    """Returns the arena of the model in a directory, as `Smoke.arena_bytes` is meant, measured in a process of its own.

    Raises:
      ValueError: If it cannot be run.
    """
    (found,) = run([directory], limits or Limits(), golden=False)
    if found.ended or found.refused:
        raise ValueError(f"the arena of the model cannot be measured: {_why(found)}")
    return found.arena_bytes


def _before_it_runs(directory: Path, smoke: Smoke) -> Iterator[Reason]:
    missing = [name for name in (TFLITE_FILE, CONTRACT_FILE, VECTORS_FILE) if not (directory / name).is_file()]
    if missing:
        yield _fails(
            "files", "incomplete", f"{', '.join(missing)} missing beside the model; serve what TFLiteIntConverter made"
        )
        return
    tflite = (directory / TFLITE_FILE).read_bytes()
    try:
        expected = str(json.loads((directory / CONTRACT_FILE).read_text())["tflite_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        yield _fails("files", "incomplete", f"{CONTRACT_FILE} cannot be read: {error!r}")
        return
    sha256 = hashlib.sha256(tflite).hexdigest()
    try:
        found = audit(tflite, smoke.profile)
        graph = flatbuffer.read_subgraphs(tflite)[0]
    except ValueError as error:
        yield _fails("files", "unreadable", str(error))
        return
    if sha256 != expected:
        text = f"the file is {sha256[:12]}, the contract is of {expected[:12]}"
        yield _fails("files", "incomplete", text, sha256, expected)
    inside = with_float_edges(found, graph, float_edges(graph))
    for offender in inside.offenders[:_MOST_OFFENDERS]:
        text = f"{offender.op} {offender.tensor}: {offender.reason}; {offender.fix}"
        yield _fails("audit", "audit", f"{offender.rule}: {text}")
    if len(inside.offenders) > _MOST_OFFENDERS:
        yield _fails("audit", "audit", f"and {len(inside.offenders) - _MOST_OFFENDERS} more")


def _of_compiled(compiled: bytes, smoke: Smoke) -> Iterator[Reason]:
    try:
        model = flatbuffer.read_model(compiled)
    except ValueError as error:
        yield _fails("compiled file", "unreadable", str(error))
        return
    names = {op.custom_code for graph in model.subgraphs for op in graph.ops}
    what = "read, not run: no CPU runs it" if _COMPILED_OP in names else "read, not run, without a compiled op"
    yield _within("compiled file", len(compiled), smoke.file_bytes, f"; {what}")


def _of_runs(first: ModelRun, second: ModelRun, smoke: Smoke) -> Iterator[Reason]:
    for one in (first, second):
        if one.ended or one.refused:
            yield _fails("run", "crashed" if one.ended else "refused", _why(one))
            return
    for name, made in first.kernels.items():
        if not made.repeats or made.digest != second.kernels[name].digest:
            where = "in another process" if made.repeats else "again"
            yield _fails(
                f"{name} kernels", "nondeterministic", f"other outputs when it ran {where}, with {made.kernels}"
            )
            continue
        steps = {golden: max(of.values()) for golden, of in made.steps.items()}
        got, limit = (steps[_PORTABLE], 0.0) if name == _PORTABLE else (min(steps.values()), smoke.max_lsb)
        text = f"at most {got:g} steps from golden outputs, twice the same, with {made.kernels}"
        if math.isfinite(got) and (limit is None or got <= limit):
            yield _holds(f"{name} kernels", text, got, limit)
        else:
            yield _fails(f"{name} kernels", "golden" if name == _PORTABLE else "kernels", text, got, limit)
    yield _within("arena", first.arena_bytes, smoke.arena_bytes)


def _why(run_of_model: ModelRun) -> str:
    ended = f"the process that ran the model {run_of_model.ended}" if run_of_model.ended else ""
    return ended or run_of_model.refused


def _within(what: str, got: int, limit: int | None, note: str = "") -> Reason:
    if limit is None:
        return _holds(what, f"{got:,} bytes{note}", float(got))
    if got <= limit:
        return _holds(what, f"{got:,} of {limit:,} bytes{note}", float(got), float(limit))
    return _fails(what, "budget", f"{got:,} bytes, more than {limit:,}{note}", float(got), float(limit))


def _holds(check: str, text: str, got: float | None = None, limit: float | None = None) -> Reason:
    return Reason(code="holds", gate=check, got=got, limit=limit, text=holding(f"{check}: {text}"))


def _fails(
    check: str, code: Code, text: str, got: float | str | None = None, limit: float | str | None = None
) -> Reason:
    finite = None if got == math.inf else got
    return Reason(code=code, gate=check, got=finite, limit=limit, text=f"fails: {check}: {text}")
