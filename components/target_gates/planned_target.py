"""A target that a model in training is meant for, and what its gates say of the model before it is done."""

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Sequence

from components.evaluation.gate import FIRST_CPU_OP, MACS_ON_TARGET, MODEL_BYTES, TARGET_SUBGRAPHS
from components.evaluation.gates import Gates, today
from components.evaluation.judgement import judge
from components.evaluation.measurements import Measurements
from components.quantization.conversion import io_dtypes
from components.quantization.qat.preflight import PlannedConversion
from components.quantization.storable_text import with_backslashes, without_backslashes
from components.target_gates.target_facts import target_facts
from components.targets import CompileError, CompileReport, Mapping, layers, load_target

_LOGGER = logging.getLogger(__name__)
# More layers than these are counted instead of named.
_NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTarget:
    """One target of a model, as its trainer has to know it.

    Attributes:
      target: Its name.
      io_dtype: Type of the integer model's inputs and outputs, of all or by name; "" for the scheme's usual one.
      options: JSON of the options of its compiler; "" for the defaults.
      gates: Those that can be held against a model before it is evaluated.
    """

    target: str
    io_dtype: io_dtypes.IoDtype = ""
    options: str = ""
    gates: Gates = dataclasses.field(default_factory=Gates)

    def hold(self, tflite: bytes, when: str) -> None:
        """Holds the gates on ops and bytes against an integer model that is not trained, or not to its end.

        Where there are such gates and the target's compiler is here, it compiles; else the target's rules say what
        would run where. A compiler that fails on unfinished weights refuses nothing: it may take the trained ones.

        Args:
          tflite: The model.
          when: When it was made, for the error.

        Raises:
          ValueError: If a gate is not kept; says which, what to change first, and what else is not on the target.
        """
        started = time.monotonic()
        gates = self.gates.before_training()
        report = self._compiled(tflite) if gates.bounds else None
        if report is None:
            _, report = load_target(self.target).analyze(tflite, self.options)
        facts = {MODEL_BYTES: float(len(tflite)), **target_facts(dataclasses.asdict(report))}
        _LOGGER.info(
            "%s: %d of %d ops and %s of the multiplications on target %s, %d bytes, by %s in %.1f s",
            when,
            report.ops_on_target,
            report.ops_on_target + report.ops_on_cpu,
            f"{float(facts[MACS_ON_TARGET]):.1%}" if MACS_ON_TARGET in facts else "an unknown share",
            self.target,
            len(tflite),
            report.tool,
            time.monotonic() - started,
        )
        if not gates.bounds:
            return
        verdict = judge(gates, Measurements(metrics={}, examples={(): 0}, facts=facts), today())
        refused = [reason for reason in verdict.reasons if reason.refuses]
        if not refused:
            return
        texts = [f"cannot keep the gates of target {self.target!r}, tried {when}: {'; '.join(r.text for r in refused)}"]
        if any(reason.gate.startswith((MACS_ON_TARGET, FIRST_CPU_OP, TARGET_SUBGRAPHS)) for reason in refused):
            predicted, _ = load_target(self.target).analyze(tflite, self.options)
            texts += _to_change(tflite, predicted, report)
        raise ValueError("; ".join(texts))

    def _compiled(self, tflite: bytes) -> CompileReport | None:
        """What the target's compiler reports within a minute or so; None if it fails, or does not say where ops run."""
        target = load_target(self.target)
        try:
            report = target.compile(tflite, "analyze", target.hasty(self.options)).report
        except CompileError as error:
            _LOGGER.warning("the compiler of target %s fails on an unfinished model: %s", self.target, error)
            return None
        return report if not report.compiled or MACS_ON_TARGET in target_facts(dataclasses.asdict(report)) else None


def _to_change(tflite: bytes, predicted: Mapping, report: CompileReport) -> list[str]:
    """What stands between the model and the target, the first op that breaks it first."""
    breaking = report.first_breaking_op
    if breaking is None:
        return []
    where = f"layer {breaking.layer!r}" if breaking.layer else f"op {breaking.index}"
    first = f"change {where} ({breaking.op}: {breaking.status})"
    others: dict[tuple[str, str], list[str]] = {}
    for op, layer in zip(predicted.ops, layers(tflite), strict=True):
        if not op.on_target and op.index != breaking.index:
            others.setdefault((op.op, op.status), []).append(layer or f"op {op.index}")
    rows = [f"{_listed(names)} ({op}: {status})" for (op, status), names in others.items()]
    return [
        f"{first}: {breaking.edit}" if breaking.edit else first,
        *([f"by the rules not on the target either: {', '.join(rows)}"] if rows else []),
    ]


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _NAMED} more" if len(unique) > _NAMED else ""
    return ", ".join(unique[:_NAMED]) + more


def conversion_of(planned: PlannedTarget) -> PlannedConversion:
    """Returns the conversion that a training tries for a target."""
    return PlannedConversion(
        profile=planned.target,
        io_dtype=planned.io_dtype or None,
        hold=functools.partial(PlannedTarget.hold, planned),
        gated=bool(planned.gates.before_training().bounds),
    )


def to_json(planned: Sequence[PlannedTarget]) -> str:
    """Returns targets as text for `from_json`: a JSON list, as ML Metadata can keep it."""
    described = json.dumps(
        [
            {
                "target": one.target,
                "io_dtype": io_dtypes.as_text(one.io_dtype),
                "options": one.options,
                "gates": one.gates.to_json(),
            }
            for one in planned
        ]
    )
    return without_backslashes(described)


def from_json(text: str) -> tuple[PlannedTarget, ...]:
    """Reads what `to_json` wrote."""
    return tuple(
        PlannedTarget(
            target=one["target"],
            io_dtype=io_dtypes.from_text(one["io_dtype"]),
            options=one["options"],
            gates=Gates.from_json(one["gates"]),
        )
        for one in json.loads(with_backslashes(text))
    )
