"""What a run on this machine came to, as JSON: the report of a run on a service, with spans and who is at fault.

{
  "run": name of the pipeline_run in ML Metadata; "" if it did not come so far,
  "spans": the window, the newest last,
  "state": "SUCCEEDED" or "FAILED",
  "error": "" or why it failed,
  "fault": "", "examples", "drift" or "component",
  "broken_span": with "examples", the span that they are of, null if that is not known,
  "drift": how far the feature that has drifted most has, 0 to 1; null if that is not known,
  "verdict": {"blessed": ..., "pushed_to": ..., "reasons": [...]}, null if it failed; with several targets "verdicts"
}
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.retraining.decisions import BROKEN_EXAMPLES, DRIFTED_EXAMPLES
from components.retraining.ledger import replace_file
from components.retraining.spans import BrokenExamplesError, DriftError
from pipelines import decision_record
from pipelines.config import PipelineConfig
from pipelines.summary import RunSummary

Json = dict[str, Any]


def success(
    config: PipelineConfig, summaries: Sequence[RunSummary], rolled_back: Mapping[str, str], begun_s: float
) -> Json:
    """Returns the report of a run that ended, with one summary for each target.

    Args:
      config: The config.
      summaries: What it came to on each target.
      rolled_back: What was rolled back, or could not be, by target.
      begun_s: When it began, in seconds since the epoch.
    """
    verdicts = {
        summary.target: {
            "blessed": summary.blessed,
            "pushed_to": os.path.dirname(summary.pushed_to),
            "reasons": [*summary.reasons, *filter(None, [rolled_back.get(summary.target)])],
        }
        for summary in summaries
    }
    verdict = {"verdicts": verdicts} if config.targets else {"verdict": verdicts[summaries[0].target]}
    head = {**_head(config, begun_s), "state": "SUCCEEDED", "error": "", "fault": "", "drift": summaries[0].drift}
    return {**head, **verdict}


def failure(config: PipelineConfig, error: str, broken: BrokenExamplesError | None, begun_s: float) -> Json:
    """Returns the report of a run that failed with that error; `broken` if its examples were at fault."""
    fault: Json = {"fault": "component"}
    if isinstance(broken, DriftError):
        fault = {"fault": DRIFTED_EXAMPLES, "drift": broken.drift}
    elif broken:
        fault = {"fault": BROKEN_EXAMPLES, "broken_span": broken.span}
    return {**_head(config, begun_s), "state": "FAILED", "error": error, "drift": None, "verdict": None, **fault}


def _head(config: PipelineConfig, begun_s: float) -> Json:
    run = decision_record.run_since(config.metadata_url, config.name, begun_s)
    return {"run": run, "spans": list(config.spans.selected) if config.spans else []}


def write_report(file: Path, report: Json) -> None:
    """Writes a report, at once."""
    replace_file(file, json.dumps(report, indent=2, sort_keys=True) + "\n")
