"""What `attribute` found: for people as a table and a picture, for programs as JSON."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from components.quantization.attribution.kernel_agreement import KernelAgreement
from components.quantization.attribution.layers import LayerSignal
from components.quantization.attribution.metrics import Change
from components.quantization.attribution.outputs import OutputUse
from components.quantization.attribution.picture import Bar, bars
from components.quantization.qat.sensitivity import Sensitivity


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A model on the way from floats to integers.

    Attributes:
      name: "float", "fake-quant", or "integer" and the set of kernels.
      kernels: What computed it, in words.
      metrics: Loss and metrics by name; empty without labels.
      agreement: Share, 0..1, of predictions with the float model's class, by output with several values.
    """

    name: str
    kernels: str
    metrics: dict[str, float]
    agreement: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Attribution:
    """Where accuracy went.

    Attributes:
      steps: Float, fake-quant if there is such a model, and the integers once for each set of kernels.
      changes: What each step did to each metric.
      layers: One entry for each layer that was found in the .tflite, in the order of the model.
      unmatched: Names of layers that no tensor of the .tflite was found for.
      layer_kernels: The kernels of `layers`, in words.
      compared_with: What the integers of `layers` are compared with: "fake-quant" or "float".
      bound_lsb: From how many steps of 8-bit integers on a layer counts as diverging.
      outputs: One entry for each output.
      output_kernels: The kernels of `outputs`, in words.
      kernels: How far the kernels agree.
      sensitivity: What each layer does alone, the most sensitive first; empty if not asked for.
      examples: How many examples the metrics are of.
      layer_examples: How many examples the layers are of.
    """

    steps: tuple[Step, ...]
    changes: tuple[Change, ...]
    layers: tuple[LayerSignal, ...]
    unmatched: tuple[str, ...]
    layer_kernels: str
    compared_with: str
    bound_lsb: float
    outputs: tuple[OutputUse, ...]
    output_kernels: str
    kernels: KernelAgreement
    sensitivity: tuple[Sensitivity, ...]
    examples: int
    layer_examples: int

    @property
    def first_diverging(self) -> LayerSignal | None:
        """The first layer that differs by more steps than `bound_lsb`, of 8 bits each; None if there is none."""
        return next((one for one in self.layers if not one.max_lsb <= self.bound_lsb * 2 ** (one.bits - 8)), None)

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, in sentences: of degenerate outputs and of those that waste their integers."""
        return tuple(f"output {one.name!r} {finding}" for one in self.outputs for finding in one.findings)

    def __str__(self) -> str:
        """Tables of steps, changes, layers, outputs and kernels."""
        sections = [self._step_lines(), self._change_lines(), self._layer_lines(), self._output_lines()]
        sections += [[f"kernels, of {self.examples} examples", *str(self.kernels).splitlines()]]
        if self.sensitivity:
            rows = [(one.layer, _number(one.sqnr_db, ".1f")) for one in self.sensitivity]
            sections.append(_table(("quantized alone", "SQNR dB of the outputs"), rows))
        sections.append([f"finding: {finding}" for finding in self.findings])
        return "\n\n".join("\n".join(lines) for lines in sections if lines)

    def to_json(self) -> str:
        """Everything as JSON; a number that JSON has not, such as an infinite ratio, is null."""
        first = self.first_diverging
        facts = {
            **dataclasses.asdict(self),
            "first_diverging": None if first is None else first.name,
            "findings": self.findings,
        }
        facts["sensitivity"] = [{"layer": one.layer, "sqnr_db": one.sqnr_db} for one in self.sensitivity]
        return json.dumps(_finite(facts), indent=2)

    def to_svg(self) -> str:
        """A picture: bars of the changes of each metric, and of the SQNR of each layer."""
        changed = [
            Bar(label=f"{one.metric}: {one.start} to {one.end}", value=one.difference, text=_change(one))
            for one in self.changes
        ]
        first = self.first_diverging
        layers = [
            Bar(
                label=one.name,
                value=one.sqnr_db,
                text=f"{_number(one.sqnr_db, '.1f')} dB, {one.max_lsb:.1f} LSB",
                marked=one is first,
            )
            for one in self.layers
        ]
        return bars(
            (
                ("Change of the metric", changed),
                (f"SQNR of the integers to {self.compared_with} ({self.layer_kernels})", layers),
            )
        )

    def _step_lines(self) -> list[str]:
        metrics = list(self.steps[0].metrics)
        outputs = list(self.steps[0].agreement)
        head = ("step", *metrics, *(f"agreement {name}" for name in outputs), "kernels")
        rows = [
            (
                step.name,
                *(_number(step.metrics[name], ".5g") for name in metrics),
                *(f"{step.agreement[name]:.2%}" for name in outputs),
                step.kernels,
            )
            for step in self.steps
        ]
        return [f"steps, of {self.examples} examples", *_table(head, rows)]

    def _change_lines(self) -> list[str]:
        rows = [(f"{one.start} to {one.end}", one.metric, _change(one), one.cause) for one in self.changes]
        return _table(("change", "metric", "by", "cause"), rows) if rows else []

    def _layer_lines(self) -> list[str]:
        first = self.first_diverging
        head = ("layer", "SQNR dB", "max LSB", "quantization dB", "at ends", "codes used", "tensor")
        rows = [
            (
                one.name + (" <- first diverging" if one is first else ""),
                _number(one.sqnr_db, ".1f"),
                _number(one.max_lsb, ".2f"),
                "-" if one.quantization_sqnr_db is None else _number(one.quantization_sqnr_db, ".1f"),
                _number(one.saturation, ".1%"),
                _number(one.utilisation, ".1%"),
                one.tensor,
            )
            for one in self.layers
        ]
        title = f"layers, of {self.layer_examples} examples: {self.layer_kernels} against {self.compared_with}"
        unmatched = [f"no tensor found for {', '.join(self.unmatched)}"] if self.unmatched else []
        return [title, *_table(head, rows), *unmatched]

    def _output_lines(self) -> list[str]:
        head = ("output", "SQNR dB", "max LSB", "codes used", "span", "at ends", "beyond")
        rows = [
            (
                one.name,
                _number(one.sqnr_db, ".1f"),
                _number(one.max_lsb, ".2f"),
                *(_number(share, ".1%") for share in (one.utilisation, one.span, one.saturation, one.clipped)),
            )
            for one in self.outputs
        ]
        return [f"outputs, of {self.examples} examples: {self.output_kernels} against float", *_table(head, rows)]


def _change(change: Change) -> str:
    error = "" if change.standard_error is None else f" +- {change.standard_error:.2g}"
    return f"{change.difference:+.4g}{error}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form) if math.isfinite(value) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; the first and the last column are flush left."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(_cells(row, widths)).rstrip() for row in cells]


def _cells(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
