"""The components that compare the examples of a run with those of the last blessed model before it trains."""

from tfx import types
from tfx.dsl.components.base import base_node

from components.drift_gate import DriftGate
from components.evaluation.drift import of_drift
from components.span_drift import SpanDrift
from pipelines.config import PipelineConfig


def drift_components(
    config: PipelineConfig, data: list[base_node.BaseNode], baseline: types.BaseChannel
) -> list[base_node.BaseNode]:
    """Returns SpanDrift, and before Transform DriftGate if every target has gates on drift.

    Args:
      config: The config.
      data: What `data_components` returned; its Transform is made to wait.
      baseline: The last blessed model of the first target.
    """
    example_gen, statistics_gen, *_, transform = data
    gates = {plan.target: plan.gates for plan in config.plans}
    measured = SpanDrift(
        examples=example_gen.outputs["examples"],
        statistics=statistics_gen.outputs["statistics"],
        baseline_model=baseline,
        gates=gates,
    )
    if not all(map(of_drift, gates.values())):
        return [measured]
    gate = DriftGate(drift=measured.outputs["drift"])
    transform.add_upstream_node(gate)
    return [measured, gate]
