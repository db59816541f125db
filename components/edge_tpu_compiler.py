"""EdgeTPUCompiler: TargetCompiler fixed to the Edge TPU."""

from tfx import types

from components.target_compiler import TargetCompiler
from components.targets import Options


class EdgeTPUCompiler(TargetCompiler):
    """Compiles an integer TFLite model with edgetpu_compiler, or analyses it where that cannot be had."""

    def __init__(
        self, *, model: types.BaseChannel, when_missing: str = "analyze", options: Options | None = None
    ) -> None:
        """Declares the component.

        Args:
          model: An integer TFLite model, as TFLiteIntConverter made it.
          when_missing: What to do without edgetpu_compiler: "analyze", or "fail".
          options: `components.targets.edge_tpu.CompilerOptions`: what is asked of the compiler, and where it is; None
            for the defaults.

        Raises:
          ValueError: If `when_missing` is neither, or the options ask for several files.
        """
        super().__init__(model=model, target="edge_tpu", when_missing=when_missing, options=options)
