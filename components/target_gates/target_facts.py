"""What gates may ask of a model on its target, from a report: of the target's compiler, or of an analysis by rules."""

from collections.abc import Mapping
from typing import Any

from components.evaluation.gate import FIRST_CPU_OP, MACS_ON_TARGET, STREAMED_BYTES, TARGET_BASIS, TARGET_SUBGRAPHS
from components.targets import STATIC_ANALYSIS


def target_facts(report: Mapping[str, Any]) -> dict[str, float | str] | None:
    """Returns the facts by name, as `Measurements.facts` has them, and what they are by.

    Args:
      report: A `CompileReport` as a dict, or its JSON.

    Returns:
      None if a compiler's report does not say: its table of ops need not tell which ones are meant, or is missing. What
      an analysis does not know is left out, and what it is by says why.

    >>> share = {"ops": 3, "macs": 30}
    >>> breaking = {"op": "ELU"}
    >>> fields = {"compiled": False, "tool": "static analysis", "first_breaking_op": breaking, "subgraphs": None}
    >>> fields["memory"] = {"streamed_bytes": 64}
    >>> target_facts({**fields, "on_target": share, "on_cpu": {"ops": 1, "macs": 10}})  # doctest: +ELLIPSIS
    {'streamed_bytes': 64.0, 'macs_on_target': 0.75, 'first_cpu_op': 'ELU', 'target_basis': 'predicted by ...'}
    """
    there, cpu, breaking = report["on_target"], report["on_cpu"], report["first_breaking_op"]
    is_asked = report["compiled"] or report["tool"] != STATIC_ANALYSIS
    basis = f"by {report['tool']}" if is_asked else f"predicted by {report['tool']}"
    counts = {STREAMED_BYTES: report["memory"]["streamed_bytes"], TARGET_SUBGRAPHS: report["subgraphs"]}
    known = {name: float(count) for name, count in counts.items() if count is not None}
    if not cpu["ops"] and cpu["macs"] == 0:
        return {**known, MACS_ON_TARGET: 1.0, FIRST_CPU_OP: "", TARGET_BASIS: basis}
    if there["macs"] is None or cpu["macs"] is None or breaking is None:
        return None if report["compiled"] else {**known, TARGET_BASIS: "; ".join((basis, *report["problems"]))}
    macs = there["macs"] + cpu["macs"]
    share = there["macs"] / macs if macs else 0.0
    return {**known, MACS_ON_TARGET: share, FIRST_CPU_OP: breaking["op"], TARGET_BASIS: basis}
