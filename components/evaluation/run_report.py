"""How a run on a service ended, as one sentence."""

from typing import Any


def summary_line(report: dict[str, Any]) -> str:
    """Returns a report as one sentence.

    >>> summary_line({"run": "7", "state": "FAILED", "error": "task X failed", "verdict": None})
    'run 7 FAILED without a verdict: task X failed'
    >>> pushed = {"blessed": True, "pushed_to": "gs://a/1", "reasons": ["holds: a >= 1 (a is 1)"]}
    >>> summary_line({"run": "7", "state": "FAILED", "error": "", "verdicts": {"cpu": pushed, "nnapi": None}})
    'run 7 FAILED; cpu: blessed, pushed to gs://a/1; holds: a >= 1 (a is 1); nnapi: without a verdict'
    """
    head = f"run {report['run']} {report['state']}"
    error = f": {report['error']}" if report["error"] else ""
    if "verdicts" in report:
        return f"{head}{error}; " + "; ".join(
            f"{target}: {_verdict(verdict) if verdict else 'without a verdict'}"
            for target, verdict in report["verdicts"].items()
        )
    if report["verdict"] is None:
        return f"{head} without a verdict{error}"
    return f"{head}{error}; {_verdict(report['verdict'])}"


def _verdict(verdict: dict[str, Any]) -> str:
    pushed = f", pushed to {verdict['pushed_to']}" if verdict["pushed_to"] else ", not pushed"
    blessed = "blessed" if verdict["blessed"] else "not blessed"
    return f"{blessed}{pushed}; {'; '.join(verdict['reasons'])}"
