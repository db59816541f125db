"""EdgeTPUCompiler: TargetCompiler fixed to the Edge TPU."""

from tfx import types

from components.target_compiler import TargetCompiler


class EdgeTPUCompiler(TargetCompiler):
    """Compiles an integer TFLite model with edgetpu_compiler, or analyses it where that cannot be had."""

    def __init__(self, *, model: types.BaseChannel, when_missing: str = "analyze") -> None:
        """Declares the component.

        Args:
          model: An integer TFLite model, as TFLiteIntConverter made it.
          when_missing: What to do without edgetpu_compiler on PATH: "analyze", or "fail".

        Raises:
          ValueError: If `when_missing` is neither.
        """
        super().__init__(model=model, target="edge_tpu", when_missing=when_missing)
