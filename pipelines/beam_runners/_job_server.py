"""What Beam runners behind a job server have in common: where it is, and where the Python code runs.

https://beam.apache.org/documentation/runtime/sdk-harness-config/
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import ClassVar

from pipelines.beam_runners import BeamRunner
from pipelines.deployment import is_image

_ENDPOINT = re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}")
_ENVIRONMENTS = {
    "docker": "an image with a tag or digest",
    "external": "the address of a worker pool, such as 'localhost:50000'",
    "process": "the command that starts a worker, such as '/opt/apache/beam/boot'",
    "loopback": "nothing",
}
COMMON_ARGS = frozenset(
    [
        "job_endpoint",
        "environment_type",
        "environment_config",
        "environment_option",
        "environment_options",
        "sdk_worker_parallelism",
        "sdk_container_image",
        "worker_harness_container_image",
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class JobServerRunner(BeamRunner):
    """A Beam runner behind a job server.

    Attributes:
      job_endpoint: host:port of the job server.
      environment: Where workers of Python run: "docker", in containers that each machine starts; "external", in worker
        pools that are there, most often beside each task manager; "process", by a command on each machine; "loopback",
        in the component's own process, to try it.
      environment_config: Of "docker" the image, "" for the deployment's; of "external" host:port of the worker pool as
        each machine sees it; of "process" the command.
      workers_per_machine: How many Python processes work on each machine.
    """

    job_endpoint: str = ""
    environment: str = "docker"
    environment_config: str = ""
    workers_per_machine: int = 1

    OWN_ARGS: ClassVar[frozenset[str]] = COMMON_ARGS
    # What the runner is called in Beam.
    BEAM_NAME: ClassVar[str] = ""

    def problems(self) -> list[str]:
        """Returns what is missing, and what is wrong."""
        wrong = self.endpoint_problems()
        if self.environment not in _ENVIRONMENTS:
            wrong.append(f"environment={self.environment!r} (one of {', '.join(_ENVIRONMENTS)})")
        elif not self._is_config():
            expected = _ENVIRONMENTS[self.environment]
            wrong.append(
                f"environment_config={self.environment_config!r} for environment {self.environment!r} ({expected})"
            )
        if self.workers_per_machine < 1:
            wrong.append(f"workers_per_machine={self.workers_per_machine} (at least 1)")
        return wrong

    def endpoint_problems(self) -> list[str]:
        """Returns what is wrong with where the job server is."""
        if not self.job_endpoint:
            return ["no job_endpoint (host:port of the job server)"]
        if not _ENDPOINT.fullmatch(self.job_endpoint):
            return [f"job_endpoint={self.job_endpoint!r} (host:port of the job server)"]
        return []

    def _is_config(self) -> bool:
        config = self.environment_config
        return {
            "docker": not config or is_image(config),
            "external": bool(_ENDPOINT.fullmatch(config)),
            "process": bool(config),
            "loopback": not config,
        }[self.environment]

    def problems_in(self, uris: Mapping[str, str], image: str) -> list[str]:
        """Returns what containers cannot see, and that there is no image for them; elsewhere disks may be shared."""
        if self.environment != "docker":
            return []
        wrong = [
            f"{what} {uri!r} (its containers see object storage alone)"
            for what, uri in uris.items()
            if "://" not in uri
        ]
        if not (self.environment_config or image):
            wrong.append("no image (set environment_config or deployment.image, made by infra/Dockerfile)")
        return wrong

    def own_arguments(self, image: str) -> list[str]:
        """Returns the arguments that the fields stand for."""
        config = self.environment_config or (image if self.environment == "docker" else "")
        if self.environment == "process":
            config = json.dumps({"command": config})
        return [
            f"--runner={self.BEAM_NAME}",
            *([f"--job_endpoint={self.job_endpoint}"] if self.job_endpoint else []),
            f"--environment_type={self.environment.upper()}",
            *([f"--environment_config={config}"] if config else []),
            f"--sdk_worker_parallelism={self.workers_per_machine}",
            # One must be named, though only Docker uses it: without, TFX packs itself for each component.
            f"--sdk_container_image={config if self.environment == 'docker' else 'none'}",
        ]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClusterRunner(JobServerRunner):
    """A Beam runner of a cluster, by a job server that runs or by one that Beam starts.

    Attributes:
      master: In place of `job_endpoint`: where the cluster is. Beam then starts a job server by itself, with Java and a
        jar that it downloads unless `job_server_jar` is there.
      job_server_jar: Path or URL of Beam's job server for this kind of cluster; "" to download the one of this Beam.
    """

    master: str = ""
    job_server_jar: str = ""

    # Names of Beam's arguments for both.
    MASTER_ARGS: ClassVar[tuple[str, str]] = ("", "")
    MASTER_FORM: ClassVar[re.Pattern[str]] = _ENDPOINT
    MASTER_EXAMPLE: ClassVar[str] = ""

    def endpoint_problems(self) -> list[str]:
        """Returns what is wrong with where the job server or the cluster is."""
        if self.master:
            is_form = self.MASTER_FORM.fullmatch(self.master)
            wrong = [] if is_form else [f"master={self.master!r} (such as {self.MASTER_EXAMPLE!r})"]
            return [*wrong, *(["job_endpoint beside master (one of them)"] if self.job_endpoint else [])]
        if not self.job_endpoint:
            return [f"no job_endpoint and no master (host:port of the job server, or {self.MASTER_EXAMPLE!r})"]
        # By its class: one with slots is made anew, and `super()` would look for the old one.
        wrong = JobServerRunner.endpoint_problems(self)
        return [
            *wrong,
            *(["job_server_jar without master (one is started for that alone)"] if self.job_server_jar else []),
        ]

    def own_arguments(self, image: str) -> list[str]:
        """Returns the arguments that the fields stand for."""
        values = dict(zip(self.MASTER_ARGS, (self.master, self.job_server_jar), strict=True))
        return [
            *JobServerRunner.own_arguments(self, image),
            *(f"--{name}={value}" for name, value in values.items() if value),
        ]
