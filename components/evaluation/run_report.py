"""How a run on a service ended, as one sentence."""

from typing import Any


def summary_line(report: dict[str, Any]) -> str:
    """Returns a report as one sentence.

    >>> summary_line({"run": "7", "state": "FAILED", "error": "task X failed", "verdict": None})
    'run 7 FAILED without a verdict: task X failed'
    """
    head = f"run {report['run']} {report['state']}"
    error = f": {report['error']}" if report["error"] else ""
    verdict = report["verdict"]
    if verdict is None:
        return f"{head} without a verdict{error}"
    pushed = f", pushed to {verdict['pushed_to']}" if verdict["pushed_to"] else ", not pushed"
    blessed = "blessed" if verdict["blessed"] else "not blessed"
    return f"{head}{error}; {blessed}{pushed}; {'; '.join(verdict['reasons'])}"
