"""Apache Flink.

https://beam.apache.org/documentation/runners/flink/
"""

import dataclasses
import re
from typing import ClassVar

from pipelines.beam_runners._job_server import COMMON_ARGS, ClusterRunner


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Flink(ClusterRunner):
    """Apache Flink; `master` is host:port of its REST API.

    Attributes:
      parallelism: Into how many parts steps are split; 0 for the cluster's own.
    """

    parallelism: int = 0

    OWN_ARGS: ClassVar[frozenset[str]] = COMMON_ARGS | {"flink_master", "flink_job_server_jar", "parallelism"}
    BEAM_NAME: ClassVar[str] = "FlinkRunner"
    MASTER_ARGS: ClassVar[tuple[str, str]] = ("flink_master", "flink_job_server_jar")
    MASTER_FORM: ClassVar[re.Pattern[str]] = re.compile(r"(https?://)?[A-Za-z0-9.-]+:[0-9]{1,5}")
    MASTER_EXAMPLE: ClassVar[str] = "http://host:8081"

    def problems(self) -> list[str]:
        """Returns what is missing, and what is wrong."""
        wrong = ClusterRunner.problems(self)
        return [*wrong, *([f"parallelism={self.parallelism} (0 or more)"] if self.parallelism < 0 else [])]

    def own_arguments(self, image: str) -> list[str]:
        """Returns the arguments that the fields stand for."""
        parts = [f"--parallelism={self.parallelism}"] if self.parallelism else []
        return [*ClusterRunner.own_arguments(self, image), *parts]


RUNNER = Flink
