"""ExampleValidator that stops the run: nothing is trained on examples that break a schema someone wrote."""

from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components import ExampleValidator
from tfx.components.example_validator import executor as stock
from tfx.dsl.components.base import executor_spec
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import artifact_utils, standard_component_specs

from components.retraining.spans import BrokenExamplesError


class Executor(stock.Executor):
    """The stock executor, whose finding is an error."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> execution_result_pb2.ExecutorOutput:
        """Validates; raises BrokenExamplesError with all anomalies of all splits."""
        self._found: list[str] = []
        result = super().Do(input_dict, output_dict, exec_properties)
        if self._found:
            splits = artifact_utils.get_single_instance(input_dict[standard_component_specs.STATISTICS_KEY]).split_names
            raise BrokenExamplesError(f"the examples (splits {splits}) break the schema: {'; '.join(self._found)}")
        return result

    def _Validate(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
        anomalies = super()._Validate(inputs, outputs)
        self._found += [text for text in texts_of(anomalies) if text not in self._found]
        return anomalies


def texts_of(anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """Returns one sentence for each anomaly."""
    found = [(name, info.description) for name, info in sorted(anomalies.anomaly_info.items())]
    if anomalies.HasField("dataset_anomaly_info"):
        found.append(("all", anomalies.dataset_anomaly_info.description))
    return [f"{name}: {description}" for name, description in found]


class AnomalyGate(ExampleValidator):
    """The stock component with that executor; what must not run on anomalous examples is to come after it."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
