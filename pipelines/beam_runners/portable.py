"""Any job server that speaks Beam's protocol, such as Beam's own."""

import dataclasses
from typing import ClassVar

from pipelines.beam_runners._job_server import JobServerRunner


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Portable(JobServerRunner):
    """Any job server that speaks Beam's protocol; attributes as JobServerRunner."""

    BEAM_NAME: ClassVar[str] = "PortableRunner"


RUNNER = Portable
