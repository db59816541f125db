"""What is measured of a candidate model: the figures that gates are held against, by model, output and slice."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

FLOAT, INTEGER, FAKE_QUANT, LAST_BLESSED = "float", "integer", "fake_quant", "last_blessed"
MEASUREMENTS_FILE = "measurements.json"
FLIPS_FILE = "flips.json"
MODELS = (FLOAT, INTEGER, FAKE_QUANT, LAST_BLESSED)

Slice = tuple[tuple[str, str], ...]
"""Features and the values that examples of the slice have for them; () for all examples."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Where a metric is measured.

    Attributes:
      model: One of `MODELS`.
      output: Name of the model's output; "" for a model's only one.
      slice: The examples; () for all.
    """

    model: str
    output: str = ""
    slice: Slice = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """The integer model against another model on the same examples.

    Attributes:
      examples: How many examples.
      effective_examples: How many examples of equal weight surely say as much, as `intervals.effective_examples`; 0 if
        none weighs anything.
      agreement: Share of the examples on which both predict one class, 0 to 1.
      better: How many examples only the integer model has right; 0 without classes.
      worse: How many examples only the other model has right; 0 without classes.
      difference: Accuracy of the integer model minus the other's.
      low: Lower bound of the confidence interval of the difference.
      high: Upper bound of the confidence interval of the difference.
      confidence: Of the interval, 0 to 1.
      mcnemar_p: Probability of so uneven a `better` and `worse` between models that are equally good.
      ties: How many examples the integer model's highest score is tied on.
      other_ties: How many examples the other model's highest score is tied on.
      calibration_error: Expected calibration error of the integer model, 0 to 1; nan where there is none.
      other_calibration_error: Expected calibration error of the other model, 0 to 1; nan where there is none.
    """

    examples: int
    effective_examples: float
    agreement: float
    better: int
    worse: int
    difference: float
    low: float
    high: float
    confidence: float
    mcnemar_p: float
    ties: int
    other_ties: int
    calibration_error: float
    other_calibration_error: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """All that is measured of a candidate.

    Attributes:
      metrics: Metrics by name, of every model, output and slice.
      examples: How many examples every slice has; () is all of them.
      weightless: The slices whose examples all have weight 0, of which no metric means anything.
      unclear: What has to be said of labels, or mended, before figures of an output mean anything, by output.
      paired: The integer model against another, by the other model's name, output and slice.
      degenerate: What is degenerate of the outputs, by model and output: "constant", "one class", "saturated" and "not
        a number".
      incompatible: How inputs, outputs and labels of the last blessed model differ from the integer model's, one
        sentence each; empty if they do not, or there is none. With it, nothing needs to be measured of that model.
      foreign: How its pipeline, task or target is another; the same.
      unusable: Why it cannot be run; the same.
      facts: What is known of the model as a file and on its target: "model_bytes" (of the file that is pushed),
        "arena_bytes", "clipped_inputs" (0 to 1), "macs_on_target" (0 to 1), "first_cpu_op" (name of the first operation
        that ends the target's part, "" if there is none), "streamed_bytes" and "target_subgraphs" where the target has
        such, "target_basis", "streamed_basis" and "subgraphs_basis" (what the two and each of the others are by: the
        target's compiler, or its rules), and, where it was measured, "latency_ms" with "latency_host",
        "latency_kernels" and "latency_threads"; "compiled" (1 or 0) of one that was given to a target's compiler; and
        what `components.evaluation.drift.Drift.facts` has of its examples.
    """

    metrics: Mapping[Cell, Mapping[str, float]]
    examples: Mapping[Slice, int]
    weightless: frozenset[Slice] = frozenset()
    unclear: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paired: Mapping[tuple[str, str, Slice], Paired] = dataclasses.field(default_factory=dict)
    degenerate: Mapping[tuple[str, str], tuple[str, ...]] = dataclasses.field(default_factory=dict)
    incompatible: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    facts: Mapping[str, float | str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Returns what no other file of an evaluation has: metrics, facts, and what was left out; null for NaN."""
        metrics = [
            {**dataclasses.asdict(cell), "examples": self.examples.get(cell.slice), "metrics": _finite(values)}
            for cell, values in sorted(self.metrics.items(), key=lambda item: dataclasses.astuple(item[0]))
        ]
        left_out = [*self.foreign, *self.incompatible, *self.unusable]
        document = {"metrics": metrics, "facts": _finite(self.facts), "last_blessed_left_out": left_out}
        return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def of_all_examples(integer: Mapping[str, float], parent: Mapping[str, float], examples: int) -> Measurements:
    """Returns measurements of metrics over all examples alone, of an integer model and its float parent."""
    return Measurements(metrics={Cell(model=INTEGER): integer, Cell(model=FLOAT): parent}, examples={(): examples})
