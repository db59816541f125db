"""What gates may ask of a model on its target, from a report: of the target's compiler, or of an analysis by rules."""

from collections.abc import Mapping
from typing import Any

from components.evaluation.gate import (
    BASES,
    FIRST_CPU_OP,
    MACS_ON_TARGET,
    STREAMED_BYTES,
    TARGET_BASIS,
    TARGET_SUBGRAPHS,
)
from components.targets import STATIC_ANALYSIS

# Below it an estimate of memory is but the least that there is.
_SURE = 0.5


def target_facts(report: Mapping[str, Any]) -> dict[str, float | str]:
    """Returns the facts by name, as `Measurements.facts` has them, and what they are by.

    Args:
      report: A `CompileReport` as a dict, or its JSON.

    Returns:
      Those that are known. A compiler's report may not say which ops are on the target: its table of ops need not tell
      which ones are meant, or is missing. What an analysis does not know is left out, and what it is by says why.

    >>> share = {"ops": 3, "macs": 30}
    >>> fields = {"compiled": True, "tool": "vela", "first_breaking_op": {"op": "ELU"}, "problems": []}
    >>> fields |= {"subgraphs": None, "memory": {"streamed_bytes": 64}, "measurements": {}}
    >>> target_facts({**fields, "on_target": share, "on_cpu": {"ops": 1, "macs": 10}})  # doctest: +ELLIPSIS
    {'streamed_bytes': 64.0, 'streamed_basis': 'by vela', ... 'macs_on_target': 0.75, 'first_cpu_op': 'ELU'}
    """
    is_asked = report["compiled"] or report["tool"] != STATIC_ANALYSIS
    basis = f"by {report['tool']}" if is_asked else f"predicted by {report['tool']}"
    is_sure = report["measurements"].get("memory_confidence", 1.0) > _SURE
    streamed = report["memory"]["streamed_bytes"] if is_sure else None
    facts: dict[str, float | str] = {}
    for name, count in ((STREAMED_BYTES, streamed), (TARGET_SUBGRAPHS, report["subgraphs"])):
        if count is not None:
            facts |= {name: float(count), BASES[name]: basis}
    there, cpu, breaking = report["on_target"], report["on_cpu"], report["first_breaking_op"]
    if not cpu["ops"] and cpu["macs"] == 0:
        return {**facts, TARGET_BASIS: basis, MACS_ON_TARGET: 1.0, FIRST_CPU_OP: ""}
    if there["macs"] is None or cpu["macs"] is None or breaking is None:
        return {**facts, TARGET_BASIS: "; ".join((basis, *report["problems"]))}
    macs = there["macs"] + cpu["macs"]
    share = there["macs"] / macs if macs else 0.0
    return {**facts, TARGET_BASIS: basis, MACS_ON_TARGET: share, FIRST_CPU_OP: breaking["op"]}
