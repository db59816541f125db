"""Vertex AI Pipelines."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runners import Destination

if TYPE_CHECKING:
    from pipelines.config import PipelineConfig

SCHEMES = ("gs",)
# https://cloud.google.com/vertex-ai/docs/reference/rest/v1/MachineSpec#AcceleratorType
_ACCELERATOR = re.compile(r"(NVIDIA|TPU)(_[A-Z0-9]+)+")
# https://cloud.google.com/iam/docs/service-account-types
_SERVICE_ACCOUNT = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com")


def compile_job(config: "PipelineConfig") -> dict[str, Any]:
    """Returns a config's pipeline as the body of a request to create a PipelineJob.

    Raises:
      ValueError: For mistakes in the config.
    """
    from pipelines.job_spec import build_job, require_accelerators, require_service_account
    from pipelines.training_machines import train_on_machines

    require_service_account(config, _SERVICE_ACCOUNT, "Google service account; expected its email address")
    require_accelerators(config, _ACCELERATOR, "Vertex's names, such as 'NVIDIA_TESLA_T4' and 'NVIDIA_L4'")
    job = build_job(config, "vertex", SCHEMES)
    train_on_machines(job, config)
    # https://cloud.google.com/vertex-ai/docs/reference/rest/v1/PipelineFailurePolicy
    job["runtimeConfig"]["failurePolicy"] = f"PIPELINE_FAILURE_POLICY_FAIL_{config.deployment.failure_policy.upper()}"
    return job


def package(job: Mapping[str, Any]) -> str:
    """Returns the PipelineSpec as YAML, as `gcloud` and the console take it; labels and accounts are given there."""
    from pipelines.job_spec import to_yaml

    return to_yaml(job["pipelineSpec"])


def submit(job: Mapping[str, Any], destination: Destination) -> str:
    """Creates the PipelineJob; see `submit_to_vertex`."""
    from pipelines.submission import submit_to_vertex

    return submit_to_vertex(
        job, project=destination.project, region=destination.region, api_endpoint=destination.api_endpoint
    )
