"""A CPU with TFLite: every builtin op runs there and nothing is compiled."""

from components.quantization.conversion import flatbuffer
from components.targets import CompiledModel, Mapping, OpMapping, analysis

_BUILTIN = "TFLite builtin"
_CUSTOM = "Not a TFLite builtin"


class Cpu:
    """The CPU that runs the TFLite interpreter."""

    name = "cpu"

    def inspect(self, tflite: bytes) -> Mapping:
        """Counts every builtin op as on the target."""
        ops = flatbuffer.read_subgraphs(tflite)[0].ops
        statuses = [_CUSTOM if op.code == "CUSTOM" else _BUILTIN for op in ops]
        mapped = (
            OpMapping(index=op.index, op=op.name, on_target=status == _BUILTIN, status=status)
            for op, status in zip(ops, statuses, strict=True)
        )
        return Mapping(target=self.name, ops=tuple(mapped))

    def compiler_version(self) -> str:
        """A CPU has none."""
        return ""

    def compile(self, tflite: bytes, when_missing: str = "analyze") -> CompiledModel:
        """Passes the model on: a CPU needs no compiler, so none can be missing."""
        del when_missing
        return CompiledModel(tflite=tflite, report=analysis(self.inspect(tflite)))


TARGET = Cpu()
