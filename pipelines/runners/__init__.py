"""Runners: who executes a pipeline. One file per runner, holding `run(pipeline)`."""

from typing import TYPE_CHECKING, Protocol, cast

from components.quantization import plugins

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


class Runner(Protocol):
    """The contract of a runner's module."""

    def run(self, pipeline: "Pipeline") -> None:
        """Runs the pipeline and returns when it has ended; an exception of a component comes through."""


def runner_names() -> tuple[str, ...]:
    """Returns the names of the runners that ship."""
    return plugins.member_names(__name__)


def require_runner(name: str) -> None:
    """Checks that there is a runner of that name, without importing it; raises ValueError if not."""
    plugins.require_member(__name__, name, "runner")


def load_runner(name: str) -> Runner:
    """Returns the runner of that name.

    Raises:
      ValueError: If there is none.
    """
    return cast(Runner, plugins.load_member(__name__, name, "runner"))
