"""TFX's BeamDagRunner: components as steps of a Beam pipeline, in this process."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

_IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def run(pipeline: "Pipeline") -> None:
    """Runs the pipeline on Beam's in-process runner.

    BeamDagRunner takes no options, and Beam's default runner first tries to download another one, whose workers would
    not share this process; so the default is set for the time of the run.
    """
    from apache_beam.options.pipeline_options import StandardOptions
    from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner

    default = StandardOptions.DEFAULT_RUNNER
    StandardOptions.DEFAULT_RUNNER = _IN_PROCESS
    try:
        BeamDagRunner().run(pipeline)
    finally:
        StandardOptions.DEFAULT_RUNNER = default
