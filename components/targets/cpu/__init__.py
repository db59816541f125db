"""A CPU with TFLite: every builtin op runs there, many of them by XNNPACK.

The interpreter takes the model as it is, so nothing is compiled: the artifact is a copy, and its report never claims to
be a compilation. `inspect` tells XNNPACK's ops from the others by rules; `compile` asks TFLite's interpreter.
"""

import dataclasses
from pathlib import Path

from components.targets import CompiledModel, CompileReport, Mapping, OpMapping, analysis
from components.targets._options import TargetOptions, mistyped, options_from_json, wrong_counts
from components.targets._rules import by_rules
from components.targets._target import CopyingTarget
from components.targets.cpu.asking import ask
from components.targets.cpu.xnnpack import BUILTIN, CUSTOM, DELEGATED, RULES

_KERNELS = ("default", "optimized", "reference")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CpuOptions(TargetOptions):
    """What is measured.

    Attributes:
      measure_latency: Whether inferences on this machine are timed.
      kernels: With which kernels: "default", with XNNPACK, "optimized", without, or "reference".
      threads: With how many threads.
      runs: How many inferences.
      timeout_sec: How long the interpreter may take for all of it, its start among it.
    """

    measure_latency: bool = False
    kernels: str = "default"
    threads: int = 1
    runs: int = 50
    timeout_sec: int = 600

    def __post_init__(self) -> None:
        """Checks everything at once; raises ValueError that lists all violations."""
        wrong = mistyped(self) or wrong_counts(self, "threads", "runs", "timeout_sec")
        if type(self.kernels) is str and self.kernels not in _KERNELS:
            wrong.append(f"kernels: got {self.kernels!r}, expected one of {', '.join(_KERNELS)}")
        if wrong:
            raise ValueError(f"options of target 'cpu': {'; '.join(wrong)}")


class Cpu(CopyingTarget):
    """The CPU that runs the TFLite interpreter."""

    name = "cpu"
    options = CpuOptions

    def inspect(self, tflite: bytes) -> Mapping:
        """Counts every builtin op as on the target; by rules, its status says whose kernel runs it."""
        mapping = by_rules(self.name, tflite, RULES, None, lambda operation: DELEGATED)
        return dataclasses.replace(mapping, ops=tuple(_on_cpu(op) for op in mapping.ops))

    def report(self, tflite: bytes, mapping: Mapping) -> CompileReport:
        """Returns the analysis of a model of that mapping."""
        ops = sum(op.status == DELEGATED for op in mapping.ops)
        return dataclasses.replace(analysis(mapping, tflite, _edit), measurements={"xnnpack_ops": float(ops)})

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Passes the model on: a CPU needs no compiler, so none can be missing.

        The report says which ops the interpreter here delegates, as far as it takes the model, and, if the options ask
        for it, how long an inference takes.
        """
        del when_missing, directory
        wanted = options_from_json(self.name, CpuOptions, options)
        mapping = self.inspect(tflite)
        runs = wanted.runs if wanted.measure_latency else 0
        try:
            said = ask(tflite, wanted.kernels, wanted.threads, runs, wanted.timeout_sec)
        except ValueError as error:
            report = self.report(tflite, mapping)
            report = dataclasses.replace(report, problems=(*report.problems, f"nothing is measured: {error}"))
            return CompiledModel(tflite=tflite, report=report, mapping=mapping)
        mapping = _asked(mapping, said.delegated)
        report = self.report(tflite, mapping)
        report = dataclasses.replace(
            report,
            tool=said.tool,
            tool_version=said.version,
            latency=said.latency,
            measurements={**report.measurements, **said.figures},
        )
        return CompiledModel(tflite=tflite, report=report, mapping=mapping)


TARGET = Cpu()


def _on_cpu(op: OpMapping) -> OpMapping:
    """An op that XNNPACK leaves alone runs on a builtin kernel, unless it is none."""
    if op.op.startswith("CUSTOM"):
        return dataclasses.replace(op, on_target=False, status=CUSTOM)
    return dataclasses.replace(op, on_target=True)


def _asked(mapping: Mapping, taken: frozenset[int]) -> Mapping:
    """The mapping with the interpreter's word on each op."""
    ops = []
    for op in mapping.ops:
        status = DELEGATED if op.index in taken else CUSTOM if not op.on_target else BUILTIN
        ops.append(op if status == op.status else dataclasses.replace(op, status=status, reason=""))
    return dataclasses.replace(mapping, ops=tuple(ops))


def _edit(op: str, status: str) -> str:
    return "register the custom op with the interpreter, or leave it to the program" if status == CUSTOM else ""
