"""Where the ops of a model run."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpMapping:
    """Where one op of the model runs.

    Attributes:
      index: Its index in the main subgraph.
      op: Its name, for example "CONV_2D".
      on_target: Whether it runs on the target; else on the CPU.
      status: Why, in the words of the target's compiler where it has any.
      reason: The rule that decided, one sentence; of an op on the target what is not sure of it, or "".
      confidence: How much evidence stands behind it, 0..1; 1 where the rule is certain.
    """

    index: int
    op: str
    on_target: bool
    status: str
    reason: str = ""
    confidence: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mapping:
    """Where every op of a model runs."""

    target: str
    ops: tuple[OpMapping, ...]

    @property
    def on_target(self) -> int:
        """Number of ops on the target."""
        return sum(op.on_target for op in self.ops)

    @property
    def on_cpu(self) -> int:
        """Number of ops on the CPU."""
        return len(self.ops) - self.on_target
