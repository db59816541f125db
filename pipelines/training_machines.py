"""Training on several machines of Vertex AI: QuantizeTrainer's container as a custom job with worker pools.

A container of Vertex AI Pipelines is one machine. Several are had as Google Cloud Pipeline Components do it: the task's
container is their launcher, which creates a CustomJob and waits for its end, and the worker pools of that job run the
task's own program, with the executor's input and a TF_CONFIG that lists the machines.
https://cloud.google.com/vertex-ai/docs/pipelines/customjob-component
https://cloud.google.com/vertex-ai/docs/training/distributed-training
"""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.config import PipelineConfig
from pipelines.deployment import TRAINER, Deployment
from pipelines.job_spec import EXECUTOR_INPUT, containers_of, tasks_of

LAUNCHER_IMAGE = "gcr.io/ml-pipeline/google-cloud-pipeline-components:2.22.0"
LAUNCHER_MODULE = "google_cloud_pipeline_components.container.v1.custom_job.launcher"
WORKER_MODULE = "components.training_worker"

_PAYLOAD = "--payload"
# The executor's input as a part of a JSON string, which the payload is.
_ESCAPED_EXECUTOR_INPUT = "{{$.json_escape[1]}}"
# Where the launcher writes which job it made, for the service's pages and for itself, should it be started again.
_GCP_RESOURCES = "gcp_resources"

Json = dict[str, Any]


def require_one_machine(config: PipelineConfig, where: str) -> None:
    """Raises ValueError if a config's training takes several machines."""
    machines = config.deployment.training_machines
    if machines > 1:
        raise ValueError(
            f"config {config.name!r}: {where} trains on one machine, and deployment.training_machines is {machines},"
            " which only Vertex has; use 1, with training.distribution 'mirrored' or 'none'"
        )


def train_on_machines(job: Json, config: PipelineConfig) -> None:
    """Makes the trainer's container of a job compiled for Vertex a custom job, if several machines train.

    What was set up for the container holds for each worker: its image, arguments and accelerators. Tries and the cache
    are the task's, as before.

    Args:
      job: The compiled job; changed.
      config: The config that it was compiled from.
    """
    if config.deployment.training_machines == 1:
        return
    container = containers_of(job)[TRAINER]
    payload = {
        "display_name": f"{config.name}-{TRAINER}",
        "labels": dict(config.deployment.labels),
        "job_spec": {
            "worker_pool_specs": _worker_pools(container, config.deployment),
            # Workers wait for each other in every step: if one is started anew, all must be.
            "scheduling": {"restart_job_on_worker_restart": True},
            # Else it would be the service's own agent, and not the account that other containers run as.
            "service_account": "{{$.pipeline_service_account}}",
        },
    }
    container.clear()
    container |= {
        "image": LAUNCHER_IMAGE,
        "command": ["python3", "-u", "-m", LAUNCHER_MODULE],
        "args": [
            *("--type", "CustomJob"),
            *(_PAYLOAD, json.dumps(payload)),
            *("--project", "{{$.pipeline_google_cloud_project_id}}"),
            *("--location", "{{$.pipeline_google_cloud_location}}"),
            *("--gcp_resources", f"{{{{$.outputs.parameters['{_GCP_RESOURCES}'].output_file}}}}"),
        ],
    }
    component = job["pipelineSpec"]["components"][tasks_of(job)[TRAINER]["componentRef"]["name"]]
    component["outputDefinitions"]["parameters"] = {_GCP_RESOURCES: {"parameterType": "STRING"}}


def _worker_pools(container: Mapping[str, Any], deployment: Deployment) -> list[Json]:
    """One pool for the chief and one for all others, who do the same.

    https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec#WorkerPoolSpec
    """
    machine: Json = {"machine_type": deployment.training_machine_type}
    resources = deployment.resources_of(TRAINER)
    if resources.accelerator:
        machine |= {"accelerator_type": resources.accelerator, "accelerator_count": resources.accelerator_count}
    program = {
        "image_uri": container["image"],
        "command": [*container["command"][:-1], WORKER_MODULE],
        "args": [_ESCAPED_EXECUTOR_INPUT if text == EXECUTOR_INPUT else text for text in container["args"]],
    }
    return [
        {"machine_spec": machine, "replica_count": replicas, "container_spec": program}
        for replicas in (1, deployment.training_machines - 1)
    ]


def programs_of(container: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the containers in which a task's program runs: its own, or those of the worker pools that it launches.

    Raises:
      ValueError: If the launcher's payload is no JSON.
      KeyError: If it is no custom job.
    """
    if LAUNCHER_MODULE not in container.get("command", []):
        return [container]
    arguments = container["args"]
    pools = json.loads(arguments[arguments.index(_PAYLOAD) + 1])["job_spec"]["worker_pool_specs"]
    programs = [pool["container_spec"] for pool in pools]
    return [{"image": one["image_uri"], "command": one["command"], "args": one["args"]} for one in programs]
