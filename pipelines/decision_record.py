"""Decisions about spans in ML Metadata: each a context of its own, and custom properties of its pipeline_run.

Not each has a run there: a span may have been empty, or too old, or have exhausted the machine.

A program as well, so that the scheduler need not load ML Metadata: its argument is where that is, its standard input a
JSON list of [decision, run, facts]. It prints each decision once it is recorded, and ends at the first that cannot be.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipelines.metadata_opening import is_there, open_store

DECISION_TYPE = "tfx_qat.retraining_decision"
"""Type of the context of a decision; its name is that which the webhook is told as the decision's id."""
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


def record(metadata: str, decision: str, run: str, facts: Mapping[str, str | int]) -> None:
    """Keeps a decision, in a context of its own and with the run that it is about; told again, it is replaced.

    Args:
      metadata: Where ML Metadata is; a SQLite file is made if it is not there.
      decision: Name of the decision, which is no other's.
      run: Name of the pipeline_run; "" where the decision was made without one.
      facts: What was decided, and why.

    Raises:
      ValueError: If there is no such run.
    """
    store = open_store(metadata, create=True)
    type_id = store.put_context_type(mlmd.ContextType(name=DECISION_TYPE))
    made = store.get_context_by_type_and_name(DECISION_TYPE, decision)
    _put(store, made or mlmd.Context(type_id=type_id, name=decision), {**facts, "run": run})
    if not run:
        return
    context = store.get_context_by_type_and_name(_RUN_TYPE, run)
    if context is None:
        raise ValueError(f"{metadata}: no {_RUN_TYPE} {run!r}; was the store replaced?")
    _put(store, context, facts)


def _put(store: Any, context: mlmd.Context, facts: Mapping[str, str | int]) -> None:
    for name, value in facts.items():
        if isinstance(value, int):
            context.custom_properties[name].int_value = value
        else:
            context.custom_properties[name].string_value = value
    store.put_contexts([context])


if __name__ == "__main__":
    for _decision, _run, _facts in json.load(sys.stdin):
        record(sys.argv[1], _decision, _run, _facts)
        print(_decision, flush=True)
