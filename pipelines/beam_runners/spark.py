"""Apache Spark.

https://beam.apache.org/documentation/runners/spark/
"""

import dataclasses
import re
from typing import ClassVar

from pipelines.beam_runners._job_server import COMMON_ARGS, ClusterRunner


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spark(ClusterRunner):
    """Apache Spark; attributes as ClusterRunner."""

    OWN_ARGS: ClassVar[frozenset[str]] = COMMON_ARGS | {"spark_master_url", "spark_job_server_jar"}
    BEAM_NAME: ClassVar[str] = "SparkRunner"
    MASTER_ARGS: ClassVar[tuple[str, str]] = ("spark_master_url", "spark_job_server_jar")
    MASTER_FORM: ClassVar[re.Pattern[str]] = re.compile(r"spark://[A-Za-z0-9.-]+:[0-9]{1,5}|yarn|local(\[.+\])?")
    MASTER_EXAMPLE: ClassVar[str] = "spark://host:7077"


RUNNER = Spark
