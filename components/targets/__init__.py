"""Targets: where a model runs. One file per target, holding `TARGET`, which offers the contract `Target`.

>>> load_target("edge_tpu").name
'edge_tpu'
"""

import collections
import dataclasses
from collections.abc import Callable
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any, Protocol

from components.quantization import plugins
from components.quantization.schemes import QuantizationScheme
from components.targets._compile_error import CompileError
from components.targets._mapping import Mapping, OpMapping
from components.targets._report import (
    Attempt,
    BreakingOp,
    CompileReport,
    Latency,
    LayerFigures,
    Memory,
    OpCount,
    Share,
    report_schema,
)

__all__ = [
    "COMPILER_DIR",
    "STATIC_ANALYSIS",
    "WHEN_MISSING",
    "Attempt",
    "BreakingOp",
    "CompileError",
    "CompileReport",
    "CompiledModel",
    "Latency",
    "LayerFigures",
    "Mapping",
    "Memory",
    "OpCount",
    "OpMapping",
    "Options",
    "Share",
    "Target",
    "analysis",
    "inspect_file",
    "layers",
    "load_target",
    "options_json",
    "placed_ops",
    "report_schema",
    "require_target",
    "require_when_missing",
    "target_names",
    "with_figures",
]

COMPILER_DIR = "compiler"
"""Folder with what each run of a compiler wrote, verbatim, beside what it made."""
WHEN_MISSING = ("analyze", "fail")
STATIC_ANALYSIS = "static analysis"
"""The tool of a report that rests on rules alone."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompiledModel:
    """A file for the target and how it came about.

    Attributes:
      tflite: The file.
      report: How it came about.
      mapping: Where each op of the model that was given runs: by the compiled file, else by the target's rules; None
        where nothing tells.
    """

    tflite: bytes
    report: CompileReport
    mapping: Mapping | None


class Options(Protocol):
    """Options of a target's compiler: a frozen dataclass of the target's own."""

    def to_json(self) -> str:
        """Returns them as `Target.require_options` reads them."""


def options_json(options: Options | None) -> str:
    """Returns options as `Target.require_options` reads them; "" for None, which stands for the defaults."""
    return "" if options is None else options.to_json()


class Target(Protocol):
    """The contract of a target.

    Attributes:
      name: Its name.
      compiles: Whether it has a compiler of its own; without one every file is a copy, and never counts as compiled.
    """

    name: str
    compiles: bool

    def check(self, scheme: QuantizationScheme) -> None:
        """Checks, before anything is trained, that models of a scheme run on the target.

        Raises:
          ValueError: If they do not; says why, and which schemes do.
        """

    def inspect(self, tflite: bytes) -> Mapping:
        """Says by documented rules where every op of the main subgraph would run.

        What it depends on besides, such as a version, are keyword arguments with a default, each an option of
        `python -m pipelines inspect`. It needs neither a compiler nor TensorFlow.

        Raises:
          ValueError: If the bytes are not a TFLite flatbuffer, or are what the target's compiler made of one.
        """

    def report(self, tflite: bytes, mapping: Mapping, **options: Any) -> CompileReport:
        """Returns the report of a model that was not compiled.

        Args:
          tflite: The model.
          mapping: What `inspect` said of it.
          **options: The keyword arguments that `inspect` was given.
        """

    def analyze(self, tflite: bytes, options: str = "") -> tuple[Mapping, CompileReport]:
        """Says by the same rules what the compiler with these options would do, and the report that follows.

        Args:
          tflite: A TFLite flatbuffer.
          options: As for `require_options`.

        Raises:
          ValueError: If the bytes are not a TFLite flatbuffer, or the options none of the target's.
        """

    def hasty(self, options: str) -> str:
        """Returns the options with which a model that is not trained yet is compiled: no long search, no repetition.

        Args:
          options: As for `require_options`.
        """

    def require_options(self, options: str) -> str:
        """Checks options of the compiler and returns them as canonical JSON, every default written out.

        Args:
          options: JSON of the target's options; "" for the defaults.

        Raises:
          ValueError: If they are none; lists all that is wrong.
        """

    def compiler_version(self, options: str = "") -> str:
        """Returns what identifies the compiler on this machine, empty without one; part of a component's cache key.

        It begins with the version, "unknown" of a compiler that does not say it, as one that does not start.
        """

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Compiles for the target.

        Args:
          tflite: An integer-only TFLite flatbuffer.
          when_missing: Without a compiler: "analyze" passes the model on with a report by `inspect`; "fail" raises.
          options: As for `require_options`.
          directory: Where to keep what the compiler wrote, whether or not it succeeds; None to keep it in the report
            and the error alone.

        Raises:
          CompileError: If the compiler fails, or is missing and must not be.
          ValueError: If the bytes are not a TFLite flatbuffer, or the options none of the target's.
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


def inspect_file(target: Target, tflite: bytes, options: Table[str, str]) -> tuple[Mapping, CompileReport]:
    """Says where every op of a file would run, and the report that follows, without running any compiler.

    Args:
      target: The target.
      tflite: A TFLite flatbuffer.
      options: Texts by name, of the keyword arguments that the target's `inspect` takes.

    Raises:
      ValueError: If the bytes are no TFLite flatbuffer, or the options none of the target's; lists all that is wrong.
    """
    from components.targets import _inspection

    values = _inspection.values(target, options)
    mapping = target.inspect(tflite, **values)
    return mapping, target.report(tflite, mapping, **values)


def layers(tflite: bytes) -> tuple[str, ...]:
    """Returns of each op of the main subgraph the Keras layer that it comes from; "" where names do not tell."""
    from components.quantization.conversion import flatbuffer
    from components.targets import _figures

    graph = flatbuffer.read_subgraphs(tflite)[0]
    return tuple(_figures.layer_of(op, graph) for op in graph.ops)


def placed_ops(mapping: Mapping, tflite: bytes) -> list[dict[str, Any]]:
    """Returns a mapping as JSON can hold it, in the order of the graph: the fields of `OpMapping`, and "layer"."""
    named = zip(mapping.ops, layers(tflite), strict=True)
    return [{**dataclasses.asdict(op), "layer": layer} for op, layer in named]


def analysis(
    mapping: Mapping, tflite: bytes | None = None, edit: Callable[[str, str], str] = lambda op, status: ""
) -> CompileReport:
    """Returns the report of a model that was analysed, not compiled.

    Args:
      mapping: Where its ops run.
      tflite: The model; None for a report without figures that need it.
      edit: Says what to change in a model, of the name and status of an op off the target.
    """
    counts = collections.Counter((op.op, op.on_target, op.status) for op in mapping.ops)
    rows = tuple(OpCount(op=op, count=n, on_target=on, status=status) for (op, on, status), n in counts.items())
    report = CompileReport(target=mapping.target, compiled=False, tool=STATIC_ANALYSIS, ops=rows)
    return report if tflite is None else with_figures(report, mapping, tflite, edit)


def with_figures(
    report: CompileReport, mapping: Mapping, tflite: bytes, edit: Callable[[str, str], str] = lambda op, status: ""
) -> CompileReport:
    """Returns a report with what follows from where each op runs: both shares, and the first breaking op.

    Of a model that was not compiled, also the number of its parts, by TFLite's partitioner.
    """
    # They read flatbuffers, and a pipeline's definition needs only the names of targets.
    from components.quantization.conversion import flatbuffer
    from components.targets import _figures
    from components.targets._partition import supported_parts

    graphs = flatbuffer.read_subgraphs(tflite)
    on_target = [op.on_target for op in mapping.ops]
    there, cpu = _figures.shares(graphs, on_target)
    breaking = _figures.first_breaking_op(
        graphs[0], on_target, [op.status for op in mapping.ops], [op.reason for op in mapping.ops], edit
    )
    problems = (*report.problems, *_figures.uncounted(graphs))
    parts = report.subgraphs if report.compiled else len(supported_parts(graphs[0], on_target))
    return dataclasses.replace(
        report, on_target=there, on_cpu=cpu, subgraphs=parts, first_breaking_op=breaking, problems=problems
    )
