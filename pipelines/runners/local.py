"""TFX's LocalDagRunner: one component after the other, in this process."""

from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline


def run(pipeline: Pipeline) -> None:
    """Runs the pipeline."""
    LocalDagRunner().run(pipeline)
