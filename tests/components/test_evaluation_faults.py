"""An evaluation that was killed and is repeated ends as one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow_model_analysis as tfma
from conftest import REPOSITORY
from evaluated_models import EvaluatedModel, example_columns, write_examples
from tfx.types import channel_utils, standard_artifacts

from components.evaluation.gates import Gates
from components.quantized_evaluator import QuantizedEvaluator

pytestmark = pytest.mark.long
_KILLS = 15  # and pushes are killed at each of their changes: more than 30 in all


def _channel(kind: type) -> Any:
    return channel_utils.as_channel([kind()])


def test_evaluation_ends_as_if_nothing_had_happened_when_it_was_killed_before(tmp_path: Path) -> None:
    inputs = {
        "model": EvaluatedModel(("kind",)).save_tflite(tmp_path / "integer"),
        "baseline_model": EvaluatedModel(("kind",)).save(tmp_path / "float"),
        "examples": write_examples(example_columns(500), tmp_path / "examples"),
    }
    component = QuantizedEvaluator(
        examples=_channel(standard_artifacts.Examples),
        model=_channel(standard_artifacts.Model),
        baseline_model=_channel(standard_artifacts.Model),
        label_key="kind",
        metrics={"accuracy": "SparseCategoricalAccuracy"},
        slices=[("country",)],
        gates=Gates.of("accuracy >= 0.5", "agreement[country=*] >= 0.5"),
    )
    request = {
        "inputs": {key: artifact.uri for key, artifact in inputs.items()},
        "exec_properties": component.exec_properties,
        "kills": _KILLS,
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "evaluation_process.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["killed"] == _KILLS
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    for path in ("blessing/verdict.json", "evaluation/paired.json"):
        assert (killed / path).read_text() == (clean / path).read_text()
    names = [
        sorted(
            path.relative_to(root).as_posix()
            for part in ("blessing", "evaluation")
            for path in (root / part).rglob("*")
        )
        for root in (clean, killed)
    ]
    assert names[0] == names[1]
    assert (killed / "blessing" / "BLESSED").exists()
    results = [tfma.load_eval_result(str(root / "evaluation"), model_name="integer") for root in (clean, killed)]
    assert results[0].get_metrics_for_slice() == results[1].get_metrics_for_slice()
