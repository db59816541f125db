"""Kubeflow Pipelines, version 2."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runners import Destination

if TYPE_CHECKING:
    from pipelines.config import PipelineConfig

# TensorFlow reads s3:// only in an image to which tensorflow-io is added, which doctor notices; Kubeflow's own minio://
# it never reads.
SCHEMES = ("gs", "s3")
# https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
_ACCELERATOR = re.compile(r"[a-z0-9][a-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
_SERVICE_ACCOUNT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def compile_job(config: "PipelineConfig") -> dict[str, Any]:
    """Returns a config's pipeline as a job for Kubeflow.

    Raises:
      ValueError: For mistakes in the config.
    """
    from pipelines.job_spec import build_job, require_accelerators, require_service_account
    from pipelines.training_machines import require_one_machine

    require_one_machine(config, "Kubeflow")
    require_service_account(config, _SERVICE_ACCOUNT, "name of a Kubernetes service account")
    require_accelerators(config, _ACCELERATOR, "a resource of the cluster's nodes, such as 'nvidia.com/gpu'")
    if config.deployment.failure_policy != "slow":
        raise ValueError("failure_policy='fast' cannot be asked of Kubeflow; only Vertex has it")
    if config.spans:
        raise ValueError(
            "Kubeflow finds no spans: it runs no driver of ExampleGen; give it examples_dir, or Vertex the spans"
        )
    # Of a Resolver the backend says that it is not implemented yet, until 2025 at least:
    # https://github.com/kubeflow/pipelines/blob/74886eef57095a0e0d21932628bd6eb76a0e359e/backend/src/v2/compiler/argocompiler/argo.go
    if any(map(config.needs_last_blessed, config.plans)):
        raise ValueError(
            "Kubeflow finds no last blessed model: its backend refuses jobs with a Resolver; leave out warm_start,"
            " gates on drift, and what is held against last_blessed"
        )
    return build_job(config, "kubeflow", SCHEMES)


def package(job: Mapping[str, Any]) -> str:
    """Returns the pipeline as YAML, as Kubeflow's pages and clients take it, with labels for its pods."""
    from pipelines.submission import kubeflow_package

    return kubeflow_package(job)


def submit(job: Mapping[str, Any], destination: Destination) -> str:
    """Creates a run; see `submit_to_kubeflow`."""
    from pipelines.submission import submit_to_kubeflow

    return submit_to_kubeflow(
        job, host=destination.host, namespace=destination.namespace, experiment=destination.experiment
    )
