"""VerdictRecorder and RunReporter: what a run on a service came to, as a JSON file that outlives the run.

{reports_uri}/
  {run_id}.verdict.json   what the gates said and where the model was pushed, by VerdictRecorder, a task; with several
                          targets {run_id}.{target}.verdict.json, by a task for each
  {run_id}.json           how the run ended, with that verdict if it came so far, by RunReporter, the exit handler

An exit handler gets no artifacts, and the tasks before it may come from the cache, so its run's directory need not hold
a verdict: a task that is never cached writes it where the exit handler finds it.
"""

import json
import logging
import os
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from tfx import types
from tfx.components.evaluator import constants as blessing_constants
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration.kubeflow.decorators import FinalStatusStr
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components.evaluation.run_report import summary_line
from components.evaluation.verdict import without_held

_LOGGER = logging.getLogger(__name__)

# Resolved by both services when a task starts:
# https://github.com/kubeflow/pipelines/blob/sdk-2.5.0/sdk/python/kfp/dsl/__init__.py
RUN_ID_PLACEHOLDER = "{{$.pipeline_job_uuid}}"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Vertex's word and that of ML Metadata, which Kubeflow uses.
_WENT_WELL = ("SUCCEEDED", "COMPLETE")


class RecorderExecutor(base_executor.BaseExecutor):
    """Writes the verdict of a run."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads what the evaluator, the validator and the Pusher said of their artifacts."""
        blessings = [artifact_utils.get_single_instance(input_dict[key]) for key in ("blessing", "infra_blessing")]
        of_gates, of_smoke_test = (json.loads(one.get_string_custom_property("reasons") or "[]") for one in blessings)
        pushed = artifact_utils.get_single_instance(input_dict["pushed_model"])
        is_pushed = pushed.get_int_custom_property("pushed") == 1
        verdict = {
            "blessed": all(
                one.get_int_custom_property(blessing_constants.ARTIFACT_PROPERTY_BLESSED_KEY) == 1 for one in blessings
            ),
            "reasons": [*of_gates, *without_held(of_smoke_test)],
            "pushed_to": pushed.get_string_custom_property("pushed_destination") if is_pushed else "",
        }
        _write(_verdict_file(exec_properties, exec_properties.get("target") or ""), verdict)


class ReporterExecutor(base_executor.BaseExecutor):
    """Writes how a run ended and logs it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Puts the service's final status and the recorded verdict together."""
        given = exec_properties["final_status"]  # Vertex gives JSON, Kubeflow a structure
        status = json.loads(given) if isinstance(given, str) else json_format.MessageToDict(given)
        targets = json.loads(exec_properties.get("targets") or "[]")
        verdicts = {target: _recorded(_verdict_file(exec_properties, target)) for target in targets or ("",)}
        report = {
            "run": exec_properties["run_id"],
            "job": status.get("pipelineJobResourceName", ""),
            "state": status.get("state", ""),
            "error": (status.get("error") or {}).get("message") or "",
            **({"verdicts": verdicts} if targets else {"verdict": verdicts[""]}),
        }
        file = _file(exec_properties, "json")
        _write(file, report)
        level = logging.INFO if report["state"] in _WENT_WELL else logging.ERROR
        _LOGGER.log(level, "%s (report: %s)", summary_line(report), file)


def _verdict_file(exec_properties: dict[str, Any], target: str) -> str:
    return _file(exec_properties, f"{target}.verdict.json" if target else "verdict.json")


def _recorded(file: str) -> dict[str, Any] | None:
    """What was recorded; None if the run did not come so far."""
    return json.loads(io_utils.read_string_file(file)) if fileio.exists(file) else None


def _file(exec_properties: dict[str, Any], suffix: str) -> str:
    run_id = exec_properties["run_id"]
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"run_id {run_id!r} is no id of a run; the service did not resolve {RUN_ID_PLACEHOLDER}")
    return os.path.join(exec_properties["reports_uri"], f"{run_id}.{suffix}")


def _write(file: str, content: dict[str, Any]) -> None:
    io_utils.write_string_file(file, json.dumps(content, indent=2, sort_keys=True) + "\n")


class VerdictRecorderSpec(component_spec.ComponentSpec):
    """Inputs and parameters of VerdictRecorder."""

    PARAMETERS = {
        "reports_uri": component_spec.ExecutionParameter(type=str),
        "run_id": component_spec.ExecutionParameter(type=str),
        "target": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing),
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS: dict[str, component_spec.ChannelParameter] = {}


class VerdictRecorder(base_component.BaseComponent):
    """Records what the gates said and where the model was pushed. For services; must not be cached."""

    SPEC_CLASS = VerdictRecorderSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(RecorderExecutor)

    def __init__(
        self,
        *,
        blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        pushed_model: types.BaseChannel,
        reports_uri: str,
        target: str = "",
    ) -> None:
        """Declares the component.

        Args:
          blessing: The evaluator's.
          infra_blessing: The validator's.
          pushed_model: The Pusher's.
          reports_uri: Directory of the reports of all runs.
          target: Name of the target, of several; "" for a pipeline with one.
        """
        super().__init__(
            VerdictRecorderSpec(
                blessing=blessing,
                infra_blessing=infra_blessing,
                pushed_model=pushed_model,
                reports_uri=reports_uri,
                run_id=RUN_ID_PLACEHOLDER,
                target=target or None,
            )
        )


class RunReporterSpec(component_spec.ComponentSpec):
    """Parameters of RunReporter."""

    PARAMETERS = {
        "reports_uri": component_spec.ExecutionParameter(type=str),
        "run_id": component_spec.ExecutionParameter(type=str),
        "final_status": component_spec.ExecutionParameter(type=str),
        "targets": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS: dict[str, component_spec.ChannelParameter] = {}


class RunReporter(base_component.BaseComponent):
    """The exit handler: reports how a run ended, also one that failed."""

    SPEC_CLASS = RunReporterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ReporterExecutor)

    def __init__(self, *, reports_uri: str, targets: Sequence[str] = ()) -> None:
        """Declares the component.

        Args:
          reports_uri: Directory of the reports of all runs.
          targets: Names of the targets, if there are several; one verdict is reported for each.
        """
        super().__init__(
            RunReporterSpec(
                reports_uri=reports_uri,
                run_id=RUN_ID_PLACEHOLDER,
                final_status=FinalStatusStr(),
                targets=json.dumps(list(targets)) if targets else None,
            )
        )
