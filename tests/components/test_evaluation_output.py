"""What Beam's workers write of an evaluation lies where they and the driver both see it: below the artifact's URI."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow_model_analysis as tfma
from conftest import REPOSITORY
from evaluated_models import EvaluatedModel, example_columns, write_examples
from tfx import types
from tfx.types import channel_utils, standard_artifacts

from components import model_artifact, quantized_evaluator
from components.evaluation.gates import Gates
from components.evaluation_pass import EvaluationPass
from components.quantized_evaluator import QuantizedEvaluator
from pipelines.configs import load_config

from object_store import object_store


def _evaluation(uri: Path | str) -> types.Artifact:
    artifact = standard_artifacts.ModelEvaluation()
    artifact.uri = str(uri)
    return artifact


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, types.Artifact]:
    root = tmp_path_factory.mktemp("inputs")
    return {
        "model": EvaluatedModel(("kind",)).save_tflite(root / "integer"),
        "baseline_model": EvaluatedModel(("kind",)).save(root / "float"),
        "examples": write_examples(example_columns(60), root / "examples"),
    }


@pytest.fixture(scope="module")
def exec_properties() -> dict[str, Any]:
    channels = {
        "examples": channel_utils.as_channel([standard_artifacts.Examples()]),
        **{name: channel_utils.as_channel([standard_artifacts.Model()]) for name in ("model", "baseline_model")},
    }
    component = QuantizedEvaluator(
        **channels,
        label_key="kind",
        metrics={"accuracy": "SparseCategoricalAccuracy"},
        gates=Gates.of("accuracy >= 0.5"),
        target="cpu",
    )
    return dict(component.exec_properties)


def _record_uris(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records where evaluations, and those of refused models, are told to write."""
    found: list[str] = []

    def recording(write: Callable[..., None]) -> Callable[..., None]:
        def record(*arguments: Any, **threads: int) -> None:
            found.append(arguments[-1])
            assert threads == ({"threads": len(os.sched_getaffinity(0))} if write.__name__ == "write" else {})
            write(*arguments, **threads)

        return record

    monkeypatch.setattr(EvaluationPass, "write", recording(EvaluationPass.write))
    monkeypatch.setattr(quantized_evaluator, "write_refused", recording(quantized_evaluator.write_refused))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("is_refused", [False, True])
def test_evaluator_has_workers_write_below_the_artifact_and_leaves_only_what_is_read(
    inputs: dict[str, types.Artifact],
    exec_properties: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_refused: bool,
) -> None:
    if is_refused:
        model = standard_artifacts.Model()
        model.uri = str(tmp_path / "model")
        (tmp_path / "model" / "Format-Serving").mkdir(parents=True)
        (tmp_path / "model" / "Format-Serving" / "tflite").write_bytes(b"no model")
        inputs = {**inputs, "model": model}
    evaluation, blessing = _evaluation(tmp_path / "evaluation"), standard_artifacts.ModelBlessing()
    blessing.uri = str(tmp_path / "blessing")
    (tmp_path / "evaluation" / ".partial-1").mkdir(parents=True)  # an attempt that was killed
    (tmp_path / "evaluation" / ".partial-1" / "paired.json").write_text("{")
    written = _record_uris(monkeypatch)
    context = quantized_evaluator.Executor.Context(
        beam_pipeline_args=list(load_config("digits").beam_pipeline_args), tmp_dir=str(tmp_path / "tmp"), unique_id="1"
    )
    given = {key: [artifact] for key, artifact in inputs.items()}
    quantized_evaluator.Executor(context).Do(
        given, {"evaluation": [evaluation], "blessing": [blessing]}, exec_properties
    )
    (uri,) = written
    assert uri.startswith(f"{evaluation.uri}/")
    assert tfma.load_validation_result(evaluation.uri).validation_ok is not is_refused
    names = {path.name.partition("-")[0] for path in Path(evaluation.uri).rglob("*")}
    assert {"paired.json", "eval_config.json", "metrics", "validations.tfrecord"} <= names
    assert not any(name.startswith((".partial", "beam")) for name in names)


@pytest.mark.long
def test_evaluator_writes_to_an_object_store(
    inputs: dict[str, types.Artifact], exec_properties: dict[str, Any], tmp_path: Path
) -> None:
    request = {"inputs": {key: artifact.uri for key, artifact in inputs.items()}, "exec_properties": exec_properties}
    (tmp_path / "request.json").write_text(json.dumps(request))
    with object_store() as store:
        store.make_bucket("bucket")
        for _ in "once", "and again, over what is there":
            ran = subprocess.run(
                [
                    sys.executable,
                    str(REPOSITORY / "tests" / "evaluation_process.py"),
                    str(tmp_path),
                    "gs://bucket/outputs",
                ],
                env={**os.environ, **store.environment, "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert ran.returncode == 0, ran.stderr[-2000:]
        objects = store.objects("bucket")
    assert json.loads(objects["outputs/blessing/verdict.json"])["blessed"]
    assert json.loads(objects["outputs/evaluation/paired.json"])["paired"][0]["examples"] == 60
    assert not [name for name in objects if ".partial" in name or "temp" in name]


def test_partial_output_becomes_the_artifact_when_the_block_ends_well(tmp_path: Path) -> None:
    artifact = _evaluation(tmp_path / "evaluation")
    uris = set()
    for attempt in ("first", "second"):
        with model_artifact.partial_output(artifact) as uri:
            uris.add(uri)
            assert [path for path in (tmp_path / "evaluation").rglob("*") if path.is_file()] == []
            (Path(uri) / "directory").mkdir()
            (Path(uri) / "directory" / attempt).write_text(attempt)
        found = [path.relative_to(artifact.uri) for path in Path(artifact.uri).rglob("*") if path.is_file()]
        assert found == [Path("directory", attempt)]
    assert len(uris) == 2  # workers of a dead attempt write where nobody reads


def test_partial_output_leaves_nothing_when_the_block_fails(tmp_path: Path) -> None:
    artifact = _evaluation(tmp_path / "evaluation")

    def fail() -> None:
        with model_artifact.partial_output(artifact) as uri:
            (Path(uri) / "file").write_text("half")
            raise RuntimeError("of the block")

    with pytest.raises(RuntimeError, match="of the block"):
        fail()
    assert not Path(artifact.uri).exists()
