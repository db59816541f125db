"""TensorFlow Lite for Microcontrollers, on a CPU without an operating system.

It interprets the model as it is, so nothing is compiled: the artifact is a copy, and its report an analysis, which
never claims to be a compilation. What a program needs besides is written into the directory of the compile: model.h and
model.cc, the same bytes as an aligned array, and model_ops.h, which registers the ops that the model has.
"""

import dataclasses
import re
from pathlib import Path

from components.quantization.conversion import flatbuffer
from components.targets import CompiledModel, CompileReport, Mapping, Memory, analysis
from components.targets._operation import Operation
from components.targets._options import TargetOptions, mistyped, options_from_json
from components.targets._rules import by_rules
from components.targets._target import CopyingTarget
from components.targets.tflm import arena
from components.targets.tflm.c_array import RESERVED, c_array
from components.targets.tflm.resolver import call, resolver_header
from components.targets.tflm.rules import RULES, edit

OPS_HEADER = "model_ops.h"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TflmOptions(TargetOptions):
    """How the source is written.

    Attributes:
      array_name: Name of the array in model.cc.
    """

    array_name: str = "g_model"

    def __post_init__(self) -> None:
        """Checks the name; raises ValueError if it is no identifier."""
        name = "" if mistyped(self) else self.array_name
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in RESERVED:
            raise ValueError(f"options of target 'tflm': array_name: got {self.array_name!r}, expected an identifier")


class Tflm(CopyingTarget):
    """A microcontroller with TFLite Micro."""

    name = "tflm"
    options = TflmOptions

    def inspect(self, tflite: bytes) -> Mapping:
        """Says which ops TFLite Micro has kernels for; its status is the call that registers the op."""
        return by_rules(self.name, tflite, RULES, flatbuffer.read_subgraphs(tflite), _registered)

    def report(self, tflite: bytes, mapping: Mapping) -> CompileReport:
        """Returns the analysis of a model of that mapping, with an estimate of its arena."""
        found = arena.estimate(flatbuffer.read_subgraphs(tflite)[0])
        report = analysis(mapping, tflite, edit)
        if mapping.on_cpu:
            # There is no CPU behind it that would take what it has no kernel for.
            problem = f"TFLite Micro does not run this model: it refuses {mapping.on_cpu} of {len(mapping.ops)} ops"
            report = dataclasses.replace(report, problems=(*report.problems, problem))
        if found is None:
            return report
        return dataclasses.replace(
            report,
            memory=Memory(arena_bytes=found.total_bytes, basis=arena.BASIS),
            measurements={
                "activation_bytes": float(found.activation_bytes),
                "persistent_bytes": float(found.persistent_bytes),
                "flash_bytes": float(len(tflite)),
            },
        )

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Passes the model on, and writes its C++ source into the directory."""
        del when_missing
        name = options_from_json(self.name, TflmOptions, options).array_name
        mapping, report = self.analyze(tflite, options)
        if directory is not None:
            header = resolver_header(_all_operations(tflite), f"{name.upper()}_OPS_H_")
            directory.mkdir(parents=True, exist_ok=True)
            for file_name, content in {**c_array(tflite, name), OPS_HEADER: header.encode()}.items():
                (directory / file_name).write_bytes(content)
        return CompiledModel(tflite=tflite, report=report, mapping=mapping)


TARGET = Tflm()


def _registered(operation: Operation) -> str:
    return call(operation) or ""


def _all_operations(tflite: bytes) -> list[Operation]:
    """The ops of all subgraphs; control flow runs those of others."""
    return [
        Operation(op=op, operands=(), outputs=(), options={})
        for graph in flatbuffer.read_subgraphs(tflite)
        for op in graph.ops
    ]
