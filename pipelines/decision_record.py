"""Decisions about a run as custom properties of its pipeline_run in ML Metadata.

A program as well, so that the scheduler need not load ML Metadata: METADATA RUN and a JSON object of properties.
"""

import json
import sys
from collections.abc import Mapping

from pipelines.metadata_opening import is_there, open_store

_RUN_TYPE = "pipeline_run"


def run_since(metadata: str, pipeline: str, begun_s: float) -> str:
    """Returns the name of the pipeline's last run if it began then or later, else "".

    Args:
      metadata: Where ML Metadata is, as in `PipelineConfig.metadata_url`; a SQLite file need not be there.
      pipeline: Name of the pipeline.
      begun_s: Seconds since the epoch.
    """
    if not is_there(metadata):
        return ""
    store = open_store(metadata)
    context = store.get_context_by_type_and_name("pipeline", pipeline)
    executions = store.get_executions_by_context(context.id) if context else []
    newest = max(executions, key=lambda execution: execution.id, default=None)
    if newest is None or newest.create_time_since_epoch < int(begun_s * 1000):
        return ""
    return next((one.name for one in store.get_contexts_by_execution(newest.id) if one.type == _RUN_TYPE), "")


def record(metadata: str, run: str, facts: Mapping[str, str | int]) -> None:
    """Adds custom properties to a run; those of the same names are replaced.

    Raises:
      ValueError: If there is no such run.
    """
    store = open_store(metadata)
    context = store.get_context_by_type_and_name(_RUN_TYPE, run)
    if context is None:
        raise ValueError(f"{metadata}: no {_RUN_TYPE} {run!r}; was the store replaced?")
    for name, value in facts.items():
        if isinstance(value, int):
            context.custom_properties[name].int_value = value
        else:
            context.custom_properties[name].string_value = value
    store.put_contexts([context])


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
