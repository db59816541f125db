"""The pages on runs: of one run of a pipeline, made anew from what its artifacts hold, and of all runs in time."""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.delivery.manifest import REPORT_FILE
from components.model_report import read_report
from components.report.facts import Facts
from components.report.history import render_history
from components.report.page import render
from components.report.sections import targets
from pipelines.config import PipelineConfig
from pipelines.lineage.attempts import attempts_of, history_document
from pipelines.lineage.graph import Graph
from pipelines.metadata import ArtifactRecord, ExecutionRecord, MetadataStore
from pipelines.target_plan import ResolvedPlan

_HISTORY = "history"
_EVALUATOR, _PUSHER = "QuantizedEvaluator", "Pusher"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WrittenReport:
    """A page that was written.

    Attributes:
      target: Of which target; "" for all.
      uri: Where.
      run: Id of the run that it is on; "" for all.
      unevaluated: Ids of later runs, the newest first, that came to no evaluation, as where DriftGate stopped them.
    """

    target: str
    uri: str
    run: str = ""
    unevaluated: tuple[str, ...] = ()


def write_reports(config: PipelineConfig, run: str = "") -> Iterator[WrittenReport]:
    """Writes the page of each target of a run below the root of its config, and yields it.

    Other than the page beside the model, which was made before the push, it says where the model was pushed, and has a
    table of all targets if there are several.

    Args:
      config: The config.
      run: Id of the run; "" for the newest that came to an evaluation for each target.

    Raises:
      ValueError: If there is no such run, or it did not come to an evaluation.
    """
    found = _evaluated(config, run)
    facts = {plan.target: read_report(found.blessings[plan.target].uri) for plan in config.plans}
    pushed = {
        plan.target: _pushed_to(_output(found.executions, f"{_PUSHER}{plan.suffix}", "pushed_model"))
        for plan in config.plans
    }
    several = {"targets": _of_targets(facts, pushed)} if len(facts) > 1 else {}
    for plan in config.plans:
        documents = {**facts[plan.target].documents, **several}
        html = render(Facts(documents=documents), pushed[plan.target])
        uri = os.path.join(config.root, _file(config, plan))
        fileio.makedirs(config.root)
        io_utils.write_string_file(uri, html)
        yield WrittenReport(target=plan.target, uri=uri, run=found.run, unevaluated=found.unevaluated)


def _of_targets(facts: Mapping[str, Facts], pushed: Mapping[str, str]) -> dict[str, Any]:
    """What the table of all targets is made of."""
    return {
        target: {
            **{name: one.documents[name] for name in targets.DOCUMENTS if name in one.documents},
            "pushed_to": pushed[target],
        }
        for target, one in facts.items()
    }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Evaluated:
    """A run that came to an evaluation for each target, whose blessings are by target; and later ones that did not."""

    run: str
    executions: list[ExecutionRecord]
    blessings: dict[str, ArtifactRecord]
    unevaluated: tuple[str, ...]


def _evaluated(config: PipelineConfig, wanted: str) -> _Evaluated:
    """The run that is wanted; the newest that there is if none is."""
    others: list[str] = []
    for run, executions in MetadataStore(config.metadata_url).runs(config.name):
        found = {plan.target: _output(executions, f"{_EVALUATOR}{plan.suffix}", "blessing") for plan in config.plans}
        blessings = {target: blessing for target, blessing in found.items() if blessing is not None}
        missing = ", ".join(target for target in found if target not in blessings)
        if not missing and wanted in ("", run):
            unevaluated = () if wanted else tuple(others)
            return _Evaluated(run=run, executions=executions, blessings=blessings, unevaluated=unevaluated)
        if wanted == run:
            raise ValueError(
                f"run {run} of {config.name} did not come to an evaluation for {missing}, so that there is no report;"
                " choose another by --run"
            )
        others.append(run)
    if wanted:
        raise ValueError(f"{config.name} has no run {wanted}; its newest are {', '.join(others[:5]) or 'none'}")
    raise ValueError(
        f"no run of {config.name} came to an evaluation for each target, so that there is no report; run it again"
    )


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
