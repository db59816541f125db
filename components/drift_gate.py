"""DriftGate: stops the run before anything is trained on examples that have drifted beyond what gates allow."""

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components.evaluation.gate import DRIFT
from components.evaluation.verdict import PASSING
from components.retraining.spans import DriftError
from components.span_drift import read_drift, read_verdicts


class Executor(base_executor.BaseExecutor):
    """Reads the verdicts that SpanDrift has published, and so stay in ML Metadata."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Raises DriftError if no target takes the examples, with all reasons."""
        artifact = artifact_utils.get_single_instance(input_dict["drift"])
        verdicts = read_verdicts(artifact).values()
        if any(verdict["blessed"] for verdict in verdicts):
            return
        refusing = dict.fromkeys(
            reason["text"] for verdict in verdicts for reason in verdict["reasons"] if reason["code"] not in PASSING
        )
        error = DriftError(f"the examples have drifted: {'; '.join(refusing)}")
        greatest = read_drift(artifact).facts().get(DRIFT)
        error.drift = greatest if isinstance(greatest, float) else None
        raise error


class DriftGateSpec(component_spec.ComponentSpec):
    """Input of DriftGate."""

    PARAMETERS: dict[str, component_spec.ExecutionParameter] = {}
    INPUTS = {"drift": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies)}
    OUTPUTS: dict[str, component_spec.ChannelParameter] = {}


class DriftGate(base_component.BaseComponent):
    """What must not run on examples that have drifted is to come after it.

    With several targets it stops a run that no target takes; the evaluator refuses for each of the others.
    """

    SPEC_CLASS = DriftGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, *, drift: types.BaseChannel) -> None:
        """Declares the component; `drift` is SpanDrift's."""
        super().__init__(DriftGateSpec(drift=drift))
