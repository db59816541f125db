"""What Beam's workers write of an evaluation lies where they and the driver both see it: below the artifact's URI."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from conftest import REPOSITORY
from evaluated_models import EvaluatedModel, example_columns, integer_contract, write_examples
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


class _EarlierModel(EvaluatedModel):
    """A model whose transform cannot be run on today's examples, or gives what is no number for some."""

    def __init__(self, wants_a_column: bool) -> None:
        super().__init__(("kind",))
        spec = {"x": tf.io.FixedLenFeature([4], tf.float32)}
        gone = {"label_of_old": tf.io.FixedLenFeature([], tf.int64)} if wants_a_column else {}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def transform(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(examples, {**spec, **gone})
            return parsed if wants_a_column else {"x": tf.math.log(parsed["x"])}

        self.transform = transform


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("column", "examples cannot be parsed .*label_of_old"),
        ("number", "input 'x' has values that are not numbers"),
        ("file", "saved_model[.]pb"),
    ],
)
@pytest.mark.parametrize("workers", ["in_memory", pytest.param("multi_processing", marks=pytest.mark.extended)])
def test_last_blessed_model_is_left_out_when_its_own_transform_cannot_be_run(
    inputs: dict[str, types.Artifact], tmp_path: Path, broken: str, why: str, workers: str
) -> None:
    _EarlierModel(broken == "column").save(tmp_path / "earlier_float")
    if broken == "file":
        (tmp_path / "earlier_float" / "Format-Serving" / "saved_model.pb").write_bytes(b"no model")
    models = {
        "model": inputs["model"],
        "last_blessed_model": EvaluatedModel(("kind",)).save_tflite(tmp_path / "earlier"),
    }
    for name, model in models.items():
        contract = integer_contract(("a", "b", "c")).to_json()
        (Path(model.uri) / "Format-Serving" / "io_contract.json").write_text(contract)
        model.set_string_custom_property("transform_sha256", name)
    models["last_blessed_model"].set_string_custom_property("float_model_uri", str(tmp_path / "earlier_float"))
    given = {**inputs, **models}
    kinds = {"examples": standard_artifacts.Examples}
    component = QuantizedEvaluator(
        **{name: channel_utils.as_channel([kinds.get(name, standard_artifacts.Model)()]) for name in given},
        label_key="kind",
        metrics={"accuracy": "SparseCategoricalAccuracy"},
        gates=Gates.of("accuracy >= 0.5", "accuracy drop vs last_blessed <= 0.1"),
        target="cpu",
    )
    evaluation, blessing = _evaluation(tmp_path / "evaluation"), standard_artifacts.ModelBlessing()
    blessing.uri = str(tmp_path / "blessing")
    arguments = ["--runner=DirectRunner", f"--direct_running_mode={workers}", "--direct_num_workers=2"]
    context = quantized_evaluator.Executor.Context(beam_pipeline_args=arguments)
    quantized_evaluator.Executor(context).Do(
        {name: [artifact] for name, artifact in given.items()},
        {"evaluation": [evaluation], "blessing": [blessing]},
        dict(component.exec_properties),
    )
    held, failed = json.loads((tmp_path / "blessing" / "verdict.json").read_text())["reasons"]
    assert held["text"].startswith("holds: accuracy >= 0.5")
    assert failed["code"] == "unusable_baseline"
    assert re.search(f"its own transform: .*{why}", failed["text"])
    # TFMA knows of no such gate; it has the results of the others, and says what the verdict does.
    assert not tfma.load_validation_result(evaluation.uri).validation_ok
    assert len(tfma.load_eval_result(evaluation.uri, model_name="integer").slicing_metrics) == 1
