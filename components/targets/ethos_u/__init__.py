"""Arm Ethos-U: Vela's driver, and a static analysis by the constraints that Vela documents where there is no Vela.

https://pypi.org/project/ethos-u-vela/
"""

import logging
from pathlib import Path

from components.quantization.conversion import flatbuffer
from components.targets import CompiledModel, CompileError, CompileReport, Mapping, OpMapping, analysis
from components.targets._compiled_file import require_uncompiled
from components.targets._operation import read_operations
from components.targets._target import ProfiledTarget
from components.targets.ethos_u.driver import drive
from components.targets.ethos_u.edits import edit
from components.targets.ethos_u.failures import KINDS
from components.targets.ethos_u.operation import NpuOperation
from components.targets.ethos_u.options import CUSTOM_OP, VelaOptions
from components.targets.ethos_u.program import VARIABLE, find_vela, identity
from components.targets.ethos_u.reporting import NAME, compiled_model
from components.targets.ethos_u.rules import decide

__all__ = ["TARGET", "VARIABLE", "EthosU", "VelaOptions"]

_LOGGER = logging.getLogger(__name__)


class EthosU(ProfiledTarget):
    """The Ethos-U NPUs and Vela."""

    name = NAME

    def inspect(self, tflite: bytes, *, accelerator_config: str = VelaOptions().accelerator_config) -> Mapping:
        """Predicts which ops Vela would put on an NPU, each by itself; see `rules`.

        Args:
          tflite: A TFLite flatbuffer.
          accelerator_config: The NPU, as in `VelaOptions`.

        Raises:
          ValueError: If the bytes are not a TFLite flatbuffer or compiled already, or there is no such NPU.
        """
        require_uncompiled(tflite, CUSTOM_OP)
        family = VelaOptions(accelerator_config=accelerator_config).family
        graph = flatbuffer.read_subgraphs(tflite)[0]
        ops = []
        for operation in read_operations(tflite, graph, NpuOperation):
            decision = decide(operation, family)
            ops.append(
                OpMapping(
                    index=operation.op.index,
                    op=operation.op.name,
                    on_target=decision.on_npu,
                    status=decision.status,
                    reason=decision.reason,
                    confidence=decision.confidence,
                )
            )
        return Mapping(target=self.name, ops=tuple(ops))

    def report(
        self, tflite: bytes, mapping: Mapping, *, accelerator_config: str = VelaOptions().accelerator_config
    ) -> CompileReport:
        """Returns the analysis of a model of that mapping."""
        family = VelaOptions(accelerator_config=accelerator_config).family
        return analysis(mapping, tflite, lambda op, status: edit(op, status, family))

    def analyze(self, tflite: bytes, options: str = "") -> tuple[Mapping, CompileReport]:
        """Predicts what Vela does for the options' NPU."""
        npu = VelaOptions.from_json(options).accelerator_config
        mapping = self.inspect(tflite, accelerator_config=npu)
        return mapping, self.report(tflite, mapping, accelerator_config=npu)

    def require_options(self, options: str) -> str:
        """Reads `VelaOptions`."""
        return VelaOptions.from_json(options).to_json()

    def compiler_version(self, options: str = "") -> str:
        """Returns Vela's version and the sha256 of a configuration file that the options name; "" without Vela."""
        return identity(VelaOptions.from_json(options))

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Runs Vela."""
        wanted = VelaOptions.from_json(options)
        vela = find_vela(wanted)
        if vela is None and when_missing == "analyze":
            _LOGGER.info("%s is not there: the model is analysed, not compiled", wanted.compiler)
            mapping, report = self.analyze(tflite, options)
            return CompiledModel(tflite=tflite, report=report, mapping=mapping)
        if vela is None:
            kind = KINDS["missing_compiler"]
            raise CompileError(f"{wanted.compiler} is not there: {kind.sentence}; {kind.fix}", kind="missing_compiler")
        flatbuffer.read_subgraphs(tflite)  # Vela may crash at what is none
        return compiled_model(drive(vela, wanted, tflite, directory), tflite, wanted)


TARGET = EthosU()
