"""What Vertex makes of a custom job's launcher: a process for each replica of its worker pools, with a TF_CONFIG.

https://cloud.google.com/vertex-ai/docs/training/distributed-training
https://cloud.google.com/ai-platform/training/docs/distributed-training-details
"""

import argparse
import contextlib
import json
import socket
from typing import Any, NamedTuple

LAUNCHER = "google_cloud_pipeline_components.container.v1.custom_job.launcher"
_ROLES = ("chief", "worker")  # by the pool's position


class Process(NamedTuple):
    """One process to start.

    Attributes:
      name: Of the replica, such as "worker-0"; "" for a container that is no launcher.
      command: Its command line.
      environment: What it gets besides the container's.
    """

    name: str
    command: list[str]
    environment: dict[str, str]


def processes_of(command: list[str]) -> list[Process]:
    """Returns the processes that a container's command line comes to; the first is the one that counts."""
    if LAUNCHER not in command:
        return [Process("", command, {})]
    parser = argparse.ArgumentParser(exit_on_error=False)
    for option in ("--type", "--project", "--location", "--payload", "--gcp_resources"):
        parser.add_argument(option, required=True)
    arguments = parser.parse_args(command[command.index(LAUNCHER) + 1 :])
    assert arguments.type == "CustomJob"
    pools = _checked(json.loads(arguments.payload))["job_spec"]["worker_pool_specs"]
    ports = iter(_free_ports(sum(pool["replica_count"] for pool in pools)))
    cluster = {
        role: [f"localhost:{next(ports)}" for _ in range(pool["replica_count"])]
        for role, pool in zip(_ROLES, pools, strict=True)
    }
    return [
        Process(
            f"{role}-{index}",
            [*pool["container_spec"]["command"], *pool["container_spec"]["args"]],
            {"TF_CONFIG": _tf_config(cluster, role, index)},
        )
        for role, pool in zip(_ROLES, pools, strict=True)
        for index in range(pool["replica_count"])
    ]


def _checked(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload, which the API's own types must take: unknown fields are errors."""
    from google.cloud.aiplatform_v1.types import CustomJob

    CustomJob.from_json(json.dumps(payload))
    return payload


def _tf_config(cluster: dict[str, list[str]], role: str, index: int) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}, "environment": "cloud"})


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
