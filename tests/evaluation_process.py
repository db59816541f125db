"""Evaluations in processes of their own that are killed at random, and what is there after one that is not.

Run as a program with a directory that holds `request.json`: artifacts by key, exec_properties, and how often to kill.
With a URI behind it, it makes one evaluation, whose outputs are there.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tfx.types import standard_artifacts

from components import quantized_evaluator
from pipelines.configs import load_config

_KINDS = {
    "examples": standard_artifacts.Examples,
    "evaluation": standard_artifacts.ModelEvaluation,
    "blessing": standard_artifacts.ModelBlessing,
}


def _artifact(key: str, uri: str) -> Any:
    artifact = _KINDS.get(key, standard_artifacts.Model)()
    artifact.uri = uri
    if key == "examples":
        artifact.split_names = '["eval"]'
    return artifact


def _evaluate(request: dict[str, Any], outputs: Path | str) -> None:
    context = quantized_evaluator.Executor.Context(
        beam_pipeline_args=list(load_config("digits").beam_pipeline_args), tmp_dir=f"{outputs}/tmp", unique_id="1"
    )
    inputs = {key: [_artifact(key, uri)] for key, uri in request["inputs"].items()}
    made = {key: [_artifact(key, f"{outputs}/{key}")] for key in ("evaluation", "blessing")}
    quantized_evaluator.Executor(context).Do(inputs, made, request["exec_properties"])


def _in_a_fork(request: dict[str, Any], outputs: Path, seconds: float) -> tuple[bool, float]:
    """Whether an evaluation ended by itself, and how long it ran."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _evaluate(request, outputs)
            status = 0
        finally:
            os._exit(status)
    while time.monotonic() < started + seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"an evaluation ended with {status}"
            return True, time.monotonic() - started
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, seconds


def main(directory: Path, uri: str = "") -> None:
    """Prints, as JSON, what was killed, and how many evaluations ended before they could be."""
    request = json.loads((directory / "request.json").read_text())
    if uri:
        _evaluate(request, uri)
        return
    ended, seconds = _in_a_fork(request, directory / "clean", 600)
    assert ended
    random_ = random.Random(3)
    found: list[bool] = []
    while found.count(False) < request["kills"] and len(found) < 3 * request["kills"]:
        # The last tenth, in which results are written, gets half of the kills.
        moment = random_.uniform(0, 1) if len(found) % 2 else random_.uniform(0.9, 1)
        found.append(_in_a_fork(request, directory / "killed", moment * seconds)[0])
    assert _in_a_fork(request, directory / "killed", 600)[0]
    print(json.dumps({"killed": found.count(False), "ended": found.count(True)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
