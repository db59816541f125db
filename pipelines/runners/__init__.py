"""Runners: who executes a pipeline. One file per runner.

A runner of this machine holds `run(pipeline)`; a service holds `SCHEMES`, `compile_job(config)`, `package(job)` and
`submit(job, destination)`.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from components.quantization import plugins
from pipelines.job_spec import RUNNER_LABEL

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

    from pipelines.config import PipelineConfig


class Runner(Protocol):
    """The contract of the module of a runner of this machine."""

    def run(self, pipeline: "Pipeline") -> None:
        """Runs the pipeline and returns when it has ended; an exception of a component comes through."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where a job is sent; each service says what it needs of this.

    Attributes:
      project: Google Cloud project; "" for the one of the credentials. Vertex's.
      region: Google Cloud region. Vertex's.
      api_endpoint: Host of Vertex's API where it is another than the region's, as with Private Service Connect.
      host: URL of the Kubeflow Pipelines API.
      namespace: Kubernetes namespace. Kubeflow's.
      experiment: Name of the experiment that the run belongs to. Kubeflow's.
    """

    project: str = ""
    region: str = ""
    api_endpoint: str = ""
    host: str = ""
    namespace: str = ""
    experiment: str = ""


class Service(Protocol):
    """The contract of a service's module.

    Attributes:
      SCHEMES: Of the object storage that its containers can read, such as ("gs",).
    """

    SCHEMES: tuple[str, ...]

    def compile_job(self, config: "PipelineConfig") -> dict[str, Any]:
        """Returns a config's pipeline as a job; see pipelines/job_spec.py. Raises ValueError for mistakes."""

    def package(self, job: Mapping[str, Any]) -> str:
        """Returns the job's pipeline as YAML that the service's own tools take."""

    def submit(self, job: Mapping[str, Any], destination: Destination) -> str:
        """Sends a job and returns the URL where it can be watched. Raises ValueError if that cannot be done."""


def runner_names() -> tuple[str, ...]:
    """Returns the names of the runners and services that ship."""
    return plugins.member_names(__name__)


def load_runner(name: str) -> Runner:
    """Returns the runner of that name.

    Raises:
      ValueError: If there is none, or it is a service.
    """
    module = plugins.load_member(__name__, name, "runner")
    if not hasattr(module, "run"):
        raise ValueError(f"{name} runs nothing here; use `python -m pipelines compile` and `submit` with it")
    return cast(Runner, module)


def load_service(name: str) -> Service:
    """Returns the service of that name.

    Raises:
      ValueError: If there is none, or it is a runner of this machine.
    """
    module = plugins.load_member(__name__, name, "runner")
    if not hasattr(module, "compile_job"):
        raise ValueError(f"{name} runs on this machine; use `python -m pipelines run --runner {name}`")
    return cast(Service, module)


def service_of(job: Mapping[str, Any]) -> Service:
    """Returns the service that a job was compiled for.

    Raises:
      ValueError: If it says none.
    """
    runner = job.get("labels", {}).get(RUNNER_LABEL)
    if not runner:
        raise ValueError(
            "the job does not say by a label which service it is for, as `python -m pipelines compile` does"
        )
    return load_service(runner)
