"""Targets: where a model runs. One file per target, holding `TARGET`, which offers the contract `Target`.

>>> load_target("edge_tpu").name
'edge_tpu'
"""

import collections
import dataclasses
import json
from typing import Protocol

from components.quantization import plugins

WHEN_MISSING = ("analyze", "fail")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpMapping:
    """Where one op of the model runs.

    Attributes:
      index: Its index in the main subgraph.
      op: Its name, for example "CONV_2D".
      on_target: Whether it runs on the target; else on the CPU.
      status: Why, in the words of the target's compiler where it has any.
      reason: The rule that decided, one sentence; empty for an op on the target.
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpCount:
    """How many ops of one kind share a status."""

    op: str
    count: int
    on_target: bool
    status: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompileReport:
    """What became of a model on its way to a target.

    Attributes:
      target: Name of the target.
      compiled: Whether the target's own compiler made the file; if not, the counts are an analysis by documented rules.
      tool: What made the report: the compiler with its version, or "static analysis".
      ops: Ops by kind and status.
      log: The compiler's output, verbatim; empty without one.
    """

    target: str
    compiled: bool
    tool: str
    ops: tuple[OpCount, ...]
    log: str = ""

    @property
    def ops_on_target(self) -> int:
        """Number of ops on the target."""
        return sum(row.count for row in self.ops if row.on_target)

    @property
    def ops_on_cpu(self) -> int:
        """Number of ops on the CPU."""
        return sum(row.count for row in self.ops if not row.on_target)

    def to_json(self) -> str:
        """Returns the report as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompiledModel:
    """A file for the target and how it came about."""

    tflite: bytes
    report: CompileReport


class CompileError(RuntimeError):
    """The target's compiler failed; the message has its command, exit status and last lines."""


class Target(Protocol):
    """The contract of a target."""

    name: str

    def inspect(self, tflite: bytes) -> Mapping:
        """Says by documented rules where every op of the main subgraph would run.

        Raises:
          ValueError: If the bytes are not a TFLite flatbuffer.
        """

    def compiler_version(self) -> str:
        """Returns what identifies the compiler on this machine, empty without one; part of a component's cache key."""

    def compile(self, tflite: bytes, when_missing: str = "analyze") -> CompiledModel:
        """Compiles for the target.

        Args:
          tflite: An integer-only TFLite flatbuffer.
          when_missing: Without a compiler: "analyze" passes the model on with a report by `inspect`; "fail" raises.

        Raises:
          CompileError: If the compiler fails, or is missing and must not be.
          ValueError: If the bytes are not a TFLite flatbuffer.
        """


def target_names() -> tuple[str, ...]:
    """Returns the names of the targets that ship."""
    return plugins.member_names(__name__)


def require_when_missing(when_missing: str) -> None:
    """Checks what is to be done without a compiler; raises ValueError if it is none of `WHEN_MISSING`."""
    if when_missing not in WHEN_MISSING:
        raise ValueError(f"when_missing: got {when_missing!r}, expected one of {', '.join(WHEN_MISSING)}")


def require_target(name: str) -> None:
    """Checks that there is a target of that name, without importing it; raises ValueError if not."""
    plugins.require_member(__name__, name, "target")


def load_target(name: str) -> Target:
    """Returns the target of that name.

    Raises:
      ValueError: If there is none.

    >>> from components.quantization import convert
    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> tflite = convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]])
    >>> [(op.index, op.op, op.status) for op in load_target("edge_tpu").inspect(tflite).ops]
    [(0, 'FULLY_CONNECTED', 'Mapped to Edge TPU')]
    """
    target: Target = plugins.load_member(__name__, name, "target").TARGET
    return target


def analysis(mapping: Mapping) -> CompileReport:
    """Returns the report of a model that was analysed, not compiled."""
    counts = collections.Counter((op.op, op.on_target, op.status) for op in mapping.ops)
    rows = tuple(OpCount(op=op, count=n, on_target=on, status=status) for (op, on, status), n in counts.items())
    return CompileReport(target=mapping.target, compiled=False, tool="static analysis", ops=rows)
