"""The pages on runs: of the last run of a pipeline, made anew from what its artifacts hold, and of all runs in time."""

import dataclasses
import json
import os
import re
from collections.abc import Iterator

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.delivery.manifest import REPORT_FILE
from components.model_report import read_report
from components.report.history import render_history
from components.report.page import render
from pipelines.config import PipelineConfig
from pipelines.lineage.attempts import attempts_of, history_document
from pipelines.lineage.graph import Graph
from pipelines.metadata import ArtifactRecord, ExecutionRecord, MetadataStore
from pipelines.target_plan import ResolvedPlan

_HISTORY = "history"
_EVALUATOR, _PUSHER = "QuantizedEvaluator", "Pusher"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WrittenReport:
    """A page that was written: of which target, "" for all, and where."""

    target: str
    uri: str


def write_reports(config: PipelineConfig) -> Iterator[WrittenReport]:
    """Writes the page of each target of a config's last run below its root, and yields it.

    Other than the page beside the model, which was made before the push, it says where the model was pushed.

    Raises:
      ValueError: If nothing was run, or the last run did not come to a report.
    """
    executions = MetadataStore(config.metadata_url).last_run(config.name)
    for plan in config.plans:
        blessing = _output(executions, f"{_EVALUATOR}{plan.suffix}", "blessing")
        if blessing is None:
            raise ValueError(
                f"the last run of {config.name} did not come to an evaluation for {plan.target}, so that there is no"
                " report; run it again"
            )
        pushed = _output(executions, f"{_PUSHER}{plan.suffix}", "pushed_model")
        html = render(read_report(blessing.uri), _pushed_to(pushed))
        uri = os.path.join(config.root, _file(config, plan))
        fileio.makedirs(config.root)
        io_utils.write_string_file(uri, html)
        yield WrittenReport(target=plan.target, uri=uri)


def write_history(config: PipelineConfig) -> WrittenReport:
    """Writes the page on all runs of a config, and what it is made of, below its root.

    Raises:
      ValueError: If nothing was run.
    """
    attempts = attempts_of(Graph(MetadataStore(config.metadata_url)), config.name)
    if not attempts:
        raise ValueError(f"no run of {config.name} came to an evaluation, or failed, so that there is no history")
    document = history_document(config.name, attempts)
    fileio.makedirs(config.root)
    io_utils.write_string_file(
        os.path.join(config.root, f"{_HISTORY}.json"), json.dumps(document, indent=1, sort_keys=True) + "\n"
    )
    uri = os.path.join(config.root, f"{_HISTORY}.html")
    io_utils.write_string_file(uri, render_history(document))
    return WrittenReport(target="", uri=uri)


def _output(executions: list[ExecutionRecord], component: str, key: str) -> ArtifactRecord | None:
    found = [execution for execution in executions if execution.component == component and execution.complete]
    return found[-1].outputs.get(key, [None])[0] if found else None


def _pushed_to(pushed: ArtifactRecord | None) -> str:
    if pushed is None or pushed.properties.get("pushed") != 1:
        return ""
    return str(pushed.properties.get("pushed_destination", ""))


def _file(config: PipelineConfig, plan: ResolvedPlan) -> str:
    """The name of a page; of one of several targets it has that of the target."""
    if len(config.plans) == 1:
        return REPORT_FILE
    stem, suffix = os.path.splitext(REPORT_FILE)
    return f"{stem}.{re.sub(r'[^A-Za-z0-9_-]', '_', plan.target)}{suffix}"
