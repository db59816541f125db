"""TFX's LocalDagRunner: one component after the other, in this process."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


def run(pipeline: "Pipeline") -> None:
    """Runs the pipeline."""
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    LocalDagRunner().run(pipeline)
