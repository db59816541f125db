"""Holding gates against what was measured of a model."""

import dataclasses
import datetime
import math
from collections.abc import Iterator, Mapping

from components.evaluation.degenerate import NOT_NUMBERS
from components.evaluation.drift import drift_reasons
from components.evaluation.figure_text import DECIMALS, decimals, told
from components.evaluation.gate import (
    ANY_VALUE,
    BASES,
    COMPILED,
    COUNTED,
    DRIFT,
    FACTS,
    FIRST_CPU_OP,
    LATENCY,
    NO_OP,
    PAIRED,
    Gate,
    slice_text,
)
from components.evaluation.gates import Gates
from components.evaluation.measurements import FLOAT, INTEGER, LAST_BLESSED, Cell, Measurements, Paired, Slice
from components.evaluation.verdict import SKIPPED, Code, Reason, Verdict, holding
from components.quantization.agreement import AGREEMENT

_ROUNDING = 1e-9  # of sums of weights


def judge(gates: Gates, measured: Measurements, day: datetime.date) -> Verdict:
    """Holds each gate against what was measured.

    Args:
      gates: The gates.
      measured: What was measured.
      day: The day, by UTC, on which overrides must count.

    Raises:
      ValueError: If a gate's metric is no single number of the integer model.

    >>> cells = {Cell(model=INTEGER): {"accuracy": 0.96}, Cell(model=FLOAT): {"accuracy": 0.98}}
    >>> measured = Measurements(metrics=cells, examples={(): 100})
    >>> judge(Gates.of("accuracy >= 0.97"), measured, datetime.date(2026, 1, 1)).texts
    ('fails: accuracy >= 0.97 (accuracy is 0.9600)',)
    """
    _require_numbers(gates, measured)
    of_model = [gate for gate in gates.bounds if gate.metric != DRIFT]
    reasons = [_overridden(reason, gates, gate, day) for gate in of_model for reason in _reasons(gate, measured)]
    reasons += _degenerate(measured)
    reasons += _unclear(measured)
    if not any(reason.gate and reason.code != "no_baseline" for reason in reasons):
        reasons.append(_nothing_gated(gates))
    # What follows says nothing of how good the model is.
    if gates.require_compiled:
        reasons.append(_of_compilation(measured))
    reasons += judge_drift(gates, measured.facts, day).reasons
    return Verdict(reasons=tuple(reasons))


def judge_drift(gates: Gates, facts: Mapping[str, float | str], day: datetime.date) -> Verdict:
    """Holds the gates on drift alone; that is known before anything is trained.

    Args:
      gates: The gates.
      facts: As `Drift.facts` returns them.
      day: The day, by UTC, on which overrides must count.
    """
    return Verdict(reasons=tuple(_overridden(one, gates, gate, day) for gate, one in drift_reasons(gates, facts)))


def _require_numbers(gates: Gates, measured: Measurements) -> None:
    """A metric that some output has as a single number is a mistake of nobody."""
    numbers = {name for cell, values in measured.metrics.items() if cell.model == INTEGER for name in values}
    plural = sorted(gates.metrics - numbers - {*FACTS, *PAIRED})
    if plural:
        raise ValueError(f"gates on metrics that are not single numbers: {', '.join(plural)}; gate on others")


def _reasons(gate: Gate, measured: Measurements) -> Iterator[Reason]:
    """The reasons of one gate, one for each slice."""
    if gate.metric in FACTS:
        yield _of_fact(gate, measured)
    elif gate.compares and gate.against == LAST_BLESSED and measured.foreign:
        yield _fails(gate, "foreign_baseline", f"the last blessed model is none: {'; '.join(measured.foreign)}")
    elif gate.compares and gate.against == LAST_BLESSED and measured.unusable:
        yield _fails(gate, "unusable_baseline", f"the last blessed model cannot be run: {'; '.join(measured.unusable)}")
    elif gate.compares and gate.against == LAST_BLESSED and measured.incompatible:
        yield _fails(
            gate, "incompatible_baseline", f"the last blessed model differs: {'; '.join(measured.incompatible)}"
        )
    elif gate.compares and gate.against == LAST_BLESSED and not _has_baseline(measured):
        yield _reason(gate, "no_baseline", f"{SKIPPED}{gate} (there is no last blessed model yet)")
    else:
        slices = [cut for cut in measured.examples if _matches(gate.slice, cut)]
        for cut in slices:
            yield _of_examples(gate, measured, cut)
        if not slices:
            yield _fails(gate, "missing_slice", "there are no such examples")


def _matches(pattern: Slice, cut: Slice) -> bool:
    wanted, given = dict(pattern), dict(cut)
    return wanted.keys() == given.keys() and all(value in (ANY_VALUE, given[key]) for key, value in wanted.items())


def _has_baseline(measured: Measurements) -> bool:
    cells = (cell.model for cell in measured.metrics)
    return LAST_BLESSED in cells or any(model == LAST_BLESSED for model, _, _ in measured.paired)


def _of_fact(gate: Gate, measured: Measurements) -> Reason:
    basis = ""
    if gate.metric in BASES and measured.facts.get(BASES[gate.metric]):
        basis = f", {measured.facts[BASES[gate.metric]]}"
    if gate.metric not in measured.facts:
        return _fails(gate, "not_measured", f"{gate.metric} is not known{basis}")
    value = measured.facts[gate.metric]
    if gate.metric == FIRST_CPU_OP:
        name = str(value) or NO_OP
        return _held(gate, name in gate.choices, name, f"{gate.metric} is {name}{basis}")
    figures = f"{gate.metric} is {float(value):.12g}{basis}"
    if gate.metric == LATENCY:
        parts = [str(measured.facts.get(f"latency_{part}", "")) for part in ("host", "kernels", "threads")]
        if not all(parts):
            return _fails(gate, "not_measured", f"{figures}, but not on which host, with which kernels or threads")
        figures += f" on {parts[0]}, kernels {parts[1]}, threads {parts[2]}"
    return _number(gate, float(value), figures)


def _of_compilation(measured: Measurements) -> Reason:
    """Whether the file is the compiler's."""
    got = measured.facts.get(COMPILED)
    if got == 1:
        return Reason(code="holds", gate=COMPILED, got=1.0, limit=1.0, text=holding(f"{COMPILED} (by its compiler)"))
    if got is None:
        text = f"fails: {COMPILED} (it is not known whether the target's compiler made the file)"
        return Reason(code="not_measured", gate=COMPILED, limit=1.0, text=text)
    text = (
        f"fails: {COMPILED} (the model was analysed, not compiled; install the target's compiler, or leave out"
        " require_compiled)"
    )
    return Reason(code="not_compiled", gate=COMPILED, got=0.0, limit=1.0, text=text)


def _of_examples(gate: Gate, measured: Measurements, cut: Slice) -> Reason:
    reason = _compared(gate, measured, cut)
    return dataclasses.replace(reason, slice=cut, examples=measured.examples[cut])


def _compared(gate: Gate, measured: Measurements, cut: Slice) -> Reason:
    where = f" on {slice_text(cut)}" if cut else ""
    count = f", {measured.examples[cut]} examples" if cut else ""
    if cut in measured.weightless:
        return _fails(gate, "not_measured", f"all {measured.examples[cut]} examples{where} have weight 0")
    if gate.compares and NOT_NUMBERS in measured.degenerate.get((gate.against, gate.output), ()):
        return _fails(gate, "not_a_number", f"outputs of {gate.against} are not all numbers: it is nothing to hold to")
    if gate.confidence:
        return _confident(gate, measured.paired.get((gate.against, gate.output, cut)), where)
    value = _figure(gate, measured, INTEGER, cut)
    if value is None:
        return _fails(gate, "not_measured", f"{gate.metric}{where} is not measured{count}")
    figure = f"{gate.metric}{where} is"
    if not gate.is_relative:
        return _number(gate, value, f"{figure} {told(value, gate.bound)}{count}")
    other = _figure(gate, measured, gate.against, cut)
    if other is None:
        return _fails(gate, "not_measured", f"{figure} {value:.4f}, that of {gate.against} is not measured{count}")
    drops = gate.kind == "drop_at_most"
    change = other - value if drops else value - other
    places = max(decimals(change, gate.bound), decimals(value, other))
    figures = f"{figure} {value:.{places}f}, {gate.against} {other:.{places}f}"
    if places > DECIMALS:  # rounded, the two may lie as far apart as the bound
        figures += f", a {'drop' if drops else 'rise'} of {change:.{places}f}"
    return _number(gate, change, figures + count)


def _figure(gate: Gate, measured: Measurements, model: str, cut: Slice) -> float | None:
    """The figure of a model, the integer one or that which it is held against; None if it was not measured."""
    values = measured.metrics.get(Cell(model=model, output=gate.output, slice=cut), {})
    of_all = gate.metric == AGREEMENT and gate.against == FLOAT  # TFMA's, which weighs examples
    if gate.metric not in PAIRED or (of_all and gate.metric in values):
        return values.get(gate.metric)
    paired = measured.paired.get((gate.against, gate.output, cut))
    if paired is None:
        return None
    if gate.metric in COUNTED and math.isnan(paired.difference):
        return math.nan  # of values there are no flips and ties to count, not none
    prefix = "" if model == INTEGER else "other_"
    return float(getattr(paired, prefix + gate.metric))


def _confident(gate: Gate, paired: Paired | None, where: str) -> Reason:
    """Whether the worse bound of the interval of the difference keeps the gate."""
    if paired is None:
        return _fails(gate, "not_measured", f"the difference from {gate.against}{where} is not measured")
    if paired.confidence != gate.confidence:
        return _fails(gate, "not_measured", f"the interval{where} is one at {100 * paired.confidence:g}%")
    places = decimals(-paired.low, gate.bound)
    difference, low, high = (f"{of:.{places}f}" for of in (paired.difference, paired.low, paired.high))
    figures = (
        f"the difference from {gate.against}{where} is {difference}, between {low} and {high}, {paired.examples}"
        " examples"
    )
    if round(paired.effective_examples) != paired.examples:
        figures += f" whose weights make them as good as {paired.effective_examples:.0f}"
    needed = gate.needed_examples()
    if paired.effective_examples < needed * (1 - _ROUNDING):
        return _fails(gate, "too_few_examples", f"{figures}; this bound needs at least {needed}", -paired.low)
    return _number(gate, -paired.low, figures)


def _number(gate: Gate, got: float, figures: str) -> Reason:
    if not math.isfinite(got):
        return _fails(gate, "not_a_number", figures)
    return _held(gate, gate.holds(got), got, figures)


def _held(gate: Gate, holds: bool, got: float | str, figures: str) -> Reason:
    if holds:
        return _reason(gate, "holds", holding(f"{gate} ({figures})"), got)
    code: Code = "confidence" if gate.confidence else "change" if gate.is_relative else "value"
    return _fails(gate, code, figures, got)


def _fails(gate: Gate, code: Code, figures: str, got: float | str | None = None) -> Reason:
    finite = got if isinstance(got, str) or (got is not None and math.isfinite(got)) else None
    return _reason(gate, code, f"fails: {gate} ({figures})", finite)


def _reason(gate: Gate, code: Code, text: str, got: float | str | None = None) -> Reason:
    limit = ", ".join(gate.choices) if gate.choices else gate.bound
    return Reason(code=code, gate=str(gate), got=got, limit=limit, slice=gate.slice, output=gate.output, text=text)


def _overridden(reason: Reason, gates: Gates, gate: Gate, day: datetime.date) -> Reason:
    """The reason as it is after the override of its gate, if there is one."""
    override = gates.override(gate)
    if override is None or not reason.refuses:
        return reason
    if not override.is_current(day):
        return dataclasses.replace(
            reason, code="override_expired", text=f"{reason.text}; its override expired on {override.until}"
        )
    text = f"overridden until {override.until} because {override.because}: {reason.text}"
    return dataclasses.replace(reason, code="overridden", text=text)


def _degenerate(measured: Measurements) -> Iterator[Reason]:
    for (model, output), kinds in measured.degenerate.items():
        if model == INTEGER and kinds:
            name = f" {output!r}" if output else ""
            yield Reason(
                code="degenerate",
                got=", ".join(kinds),
                output=output,
                examples=measured.examples.get((), 0),
                text=f"fails: output{name} of the integer model is degenerate: {', '.join(kinds)}",
            )


def _unclear(measured: Measurements) -> Iterator[Reason]:
    for output, question in measured.unclear.items():
        name = f" of output {output!r}" if output else ""
        yield Reason(
            code="unclear_labels", output=output, text=f"fails: labels or scores{name} are unclear: {question}"
        )


def _nothing_gated(gates: Gates) -> Reason:
    why = "every gate was skipped" if gates.bounds else "no gate is configured"
    if gates.bless_ungated:
        return Reason(
            code="blessed_ungated", text=f"NOTHING WAS GATED: {why}; blessed all the same, since bless_ungated is set"
        )
    return Reason(
        code="nothing_gated", text=f"fails: NOTHING WAS GATED: {why}; give a gate, or set bless_ungated to bless unseen"
    )
