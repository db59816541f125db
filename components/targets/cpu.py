"""A CPU with TFLite: every builtin op runs there and nothing is compiled."""

from pathlib import Path

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme
from components.targets import CompiledModel, Mapping, OpMapping, analysis, no_options

_BUILTIN = "TFLite builtin"
_CUSTOM = "Not a TFLite builtin"


class Cpu:
    """The CPU that runs the TFLite interpreter."""

    name = "cpu"

    def check(self, scheme: QuantizationScheme) -> None:
        """Checks the scheme by the profile of the same name."""
        load_profile(self.name).check(scheme)

    def inspect(self, tflite: bytes) -> Mapping:
        """Counts every builtin op as on the target."""
        ops = flatbuffer.read_subgraphs(tflite)[0].ops
        statuses = [_CUSTOM if op.code == "CUSTOM" else _BUILTIN for op in ops]
        mapped = (
            OpMapping(index=op.index, op=op.name, on_target=status == _BUILTIN, status=status)
            for op, status in zip(ops, statuses, strict=True)
        )
        return Mapping(target=self.name, ops=tuple(mapped))

    def require_options(self, options: str) -> str:
        """A CPU has none."""
        return no_options(self.name, options)

    def compiler_version(self, options: str = "") -> str:
        """A CPU has none."""
        del options
        return ""

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Passes the model on: a CPU needs no compiler, so none can be missing."""
        del when_missing, directory
        self.require_options(options)
        return CompiledModel(tflite=tflite, report=analysis(self.inspect(tflite), tflite))


TARGET = Cpu()
