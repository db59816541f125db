"""The report of a model on its way to a target: one set of fields, and one JSON schema, for all targets."""

import dataclasses
import json
from collections.abc import Mapping as Table
from typing import Literal

from components.quantization.dataclass_schema import schema_of


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpCount:
    """How many ops of one kind share a status."""

    op: str
    count: int
    on_target: bool
    status: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What one side of the model, target or CPU, does for an inference.

    Attributes:
      ops: Number of ops.
      macs: Multiplications and additions; None if it is not known which ops they are, or how often one of them runs a
        subgraph that multiplies.
      parameters: Values of weights and biases; None as for `macs`.
    """

    ops: int
    macs: int | None = None
    parameters: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BreakingOp:
    """The first op that ends the target's part of the model.

    Attributes:
      index: Its index in the main subgraph.
      op: Its name, for example "CAST".
      layer: The Keras layer that it comes from, as far as the names of tensors tell; "" if they do not.
      status: Why, in the words of the target's compiler where it has any.
      reason: The rule that decided; "" where a compiler did.
      edit: What to change in the model, one sentence; "" where nothing is known.
    """

    index: int
    op: str
    layer: str
    status: str
    reason: str = ""
    edit: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on the target; None for what is not known.

    Attributes:
      cached_bytes: Parameters that stay in the target's memory.
      streamed_bytes: Parameters that are sent for each inference.
      arena_bytes: Room for activations, and for what a runtime keeps beside them.
      basis: What the figures rest on, if not on a compiler.
    """

    cached_bytes: int | None = None
    streamed_bytes: int | None = None
    arena_bytes: int | None = None
    basis: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Time of one inference.

    Attributes:
      ms: The time.
      kind: Whether it was "measured" or "estimated".
      basis: On what, or by what: host, clock, threads, or tool and its configuration.
    """

    ms: float
    kind: Literal["measured", "estimated"]
    basis: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LayerFigures:
    """A row of a table by layers, of a tool that makes one.

    Attributes:
      name: The layer, tensor or op, as the tool names it.
      op: Kind of op.
      measurements: Figures by name with their unit, as in `CompileReport`.
    """

    name: str
    op: str
    measurements: Table[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One run of a compiler.

    Attributes:
      command: The program and its arguments.
      seconds: How long it took.
      exit_status: What it ended with, negative for a signal; None if it was stopped or did not start.
      outcome: "compiled", or the kind of failure.
    """

    command: tuple[str, ...]
    seconds: float
    exit_status: int | None
    outcome: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompileReport:
    """What became of a model on its way to a target.

    Attributes:
      target: Name of the target.
      compiled: Whether the target's own compiler made the file; if not, the figures are by rules, or by the tool that
        was asked.
      tool: What made the report: the compiler with its version, or "static analysis".
      ops: Ops by kind and status.
      log: The compiler's output, verbatim; empty without one.
      tool_version: The compiler's version alone; "" for an analysis, or if it does not say.
      on_target: What the target does.
      on_cpu: What the CPU does.
      subgraphs: In how many parts the target runs its share; None if it is not known.
      first_breaking_op: The first op that ends the target's part; None if there is none, or it is not known.
      memory: Bytes on the target.
      latency: Time of one inference; None if nobody measured or estimated it.
      measurements: Further figures by name with their unit, such as "cycles", "sram_bytes", "flash_bytes".
      layers: Figures by layer, of a tool that gives them.
      attempts: Runs of the compiler, in order.
      problems: What does not add up, in sentences: figures that contradict one another, or the model; and what keeps a
        model from running, or its figures from being known.
    """

    target: str
    compiled: bool
    tool: str
    ops: tuple[OpCount, ...]
    log: str = ""
    tool_version: str = ""
    on_target: Share | None = None
    on_cpu: Share | None = None
    subgraphs: int | None = None
    first_breaking_op: BreakingOp | None = None
    memory: Memory = Memory()
    latency: Latency | None = None
    measurements: Table[str, float] = dataclasses.field(default_factory=dict)
    layers: tuple[LayerFigures, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Counts the ops of either side where no further figures were given."""
        if self.on_target is None:
            object.__setattr__(self, "on_target", Share(ops=self.ops_on_target))
        if self.on_cpu is None:
            object.__setattr__(self, "on_cpu", Share(ops=self.ops_on_cpu))

    @property
    def ops_on_target(self) -> int:
        """Number of ops on the target."""
        return sum(row.count for row in self.ops if row.on_target)

    @property
    def ops_on_cpu(self) -> int:
        """Number of ops on the CPU."""
        return sum(row.count for row in self.ops if not row.on_target)

    def to_json(self) -> str:
        """Returns the report as indented JSON, of the schema `report_schema`."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"


def report_schema() -> dict[str, object]:
    """Returns the JSON schema of what `CompileReport.to_json` writes.

    >>> sorted(report_schema()["required"])[:3]
    ['attempts', 'compiled', 'first_breaking_op']
    """
    return schema_of(CompileReport)
