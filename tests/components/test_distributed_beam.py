"""The same results from worker processes as from one process in memory: exactly, and floats to 1e-9."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions
from evaluated_models import EvaluatedModel, example_columns, write_examples
from google.protobuf import json_format
from tfx import types
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types import artifact_utils, channel_utils, standard_artifacts

from components import quantized_evaluator
from components.evaluation.gates import Gates
from components.evaluation.measurements import MEASUREMENTS_FILE
from components.example_files import read_split
from components.paired_evaluation import PAIRED_FILE
from components.quantization.records import fingerprint
from components.quantized_evaluator import QuantizedEvaluator
from infra.beam_cluster import beam_cluster
from pipelines.beam_arguments import set_beam_arguments
from pipelines.beam_runners import BeamRunner, parse_beam_runner
from pipelines.beam_runners.direct import Direct
from pipelines.configs import load_config
from pipelines.inputs import prepare_examples
from pipelines.metadata import MetadataStore
from pipelines.pipeline import data_components
from pipelines.runners import load_runner

from conftest_components import new_models

pytestmark = pytest.mark.extended
_EXAMPLES = 1500
# What is made from sums of probabilities, which depend on the order of the terms; all else of pairs is counted.
_SUMS_OF_FLOATS = ("calibration_error", "other_calibration_error")


@pytest.fixture(scope="module", params=[pytest.param("processes", marks=pytest.mark.long), "cluster"])
def workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BeamRunner]:
    """A runner with two worker processes: Beam's own, and a job server with a worker pool."""
    if request.param == "processes":
        yield Direct(mode="multi_processing", workers=2)
        return
    with beam_cluster(2, tmp_path_factory.mktemp("cluster")) as cluster:
        yield parse_beam_runner("portable", cluster.options)


def test_work_is_shared_by_two_processes_that_are_not_this_one(workers: BeamRunner, tmp_path: Path) -> None:
    with beam.Pipeline(options=PipelineOptions(list(workers.arguments()))) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(100))
            | beam.Reshuffle()
            | beam.Map(lambda _: os.getpid())
            | beam.Distinct()
            | beam.combiners.ToList()
            | beam.Map(lambda found, path: Path(path).write_text(json.dumps(found)), str(tmp_path / "pids"))
        )
    pids = json.loads((tmp_path / "pids").read_text())
    assert len(pids) == 2
    assert os.getpid() not in pids


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[BeamRunner], dict[str, Any]]:
    """Gives what an evaluation on a Beam runner writes, read as JSON by the file's name."""
    root = tmp_path_factory.mktemp("evaluated")
    inputs = {
        "model": [EvaluatedModel(("kind",)).save_tflite(root / "integer")],
        "baseline_model": [EvaluatedModel(("kind",), shift=0.2).save(root / "float")],
        "examples": [write_examples(example_columns(_EXAMPLES), root / "examples")],
    }
    component = QuantizedEvaluator(
        **{name: channel_utils.as_channel(artifacts) for name, artifacts in inputs.items()},
        label_key="kind",
        metrics={"accuracy": "SparseCategoricalAccuracy", "loss": "SparseCategoricalCrossentropy"},
        slices=[("country",)],
        gates=Gates.of("accuracy >= 0.5", "accuracy drop <= 0.5"),
        target="cpu",
    )

    def run(runner: BeamRunner) -> dict[str, Any]:
        directory = root / runner.name / str(len(list(root.iterdir())))
        outputs = new_models(directory, "evaluation", kind=standard_artifacts.ModelEvaluation)
        outputs |= new_models(directory, "blessing", kind=standard_artifacts.ModelBlessing)
        context = quantized_evaluator.Executor.Context(
            beam_pipeline_args=list(runner.arguments()), tmp_dir=str(directory), unique_id="1"
        )
        quantized_evaluator.Executor(context).Do(inputs, outputs, dict(component.exec_properties))
        uri = Path(outputs["evaluation"][0].uri)
        return {name: json.loads((uri / name).read_text()) for name in (PAIRED_FILE, MEASUREMENTS_FILE)}

    return run


@pytest.fixture(scope="module")
def evaluated(evaluate: Callable[[BeamRunner], dict[str, Any]]) -> dict[str, Any]:
    return evaluate(Direct())


def _without_float_sums(paired: dict[str, Any]) -> tuple[list[Any], list[float]]:
    floats = [one.pop(name) for one in paired["paired"] for name in _SUMS_OF_FLOATS]
    return [paired], floats


def test_evaluation_on_two_workers_equals_the_one_in_memory(
    workers: BeamRunner, evaluate: Callable[[BeamRunner], dict[str, Any]], evaluated: dict[str, Any]
) -> None:
    found, expected = evaluate(workers), json.loads(json.dumps(evaluated))
    (pairs, floats), (expected_pairs, expected_floats) = map(
        _without_float_sums, (found[PAIRED_FILE], expected[PAIRED_FILE])
    )
    assert pairs == expected_pairs
    assert len(floats) == 8  # of all examples and of three countries
    assert floats == pytest.approx(expected_floats, abs=1e-9)
    cells, expected_cells = (
        {(one["model"], one["output"], str(one["slice"])): one["metrics"] for one in of[MEASUREMENTS_FILE]["metrics"]}
        for of in (found, expected)
    )
    assert len(cells) == 8
    assert cells.keys() == expected_cells.keys()
    for cell, metrics in expected_cells.items():
        assert cells[cell] == pytest.approx(metrics, rel=1e-9, abs=1e-9)
    assert expected_cells["integer", "", "[]"]["example_count"] == _EXAMPLES


def _data(runner: BeamRunner, root: Path) -> dict[str, types.Artifact]:
    """Outputs of ImportExampleGen to Transform of the digits, by key."""
    config = dataclasses.replace(load_config("digits"), root=str(root), beam=runner)
    prepare_examples(config)
    components = data_components(config)
    set_beam_arguments(components, config)
    load_runner("local").run(
        Pipeline(
            pipeline_name=config.name,
            pipeline_root=config.pipeline_root,
            components=components,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(config.metadata_url),
        )
    )
    made: dict[str, types.Artifact] = {}
    for execution in MetadataStore(config.metadata_url).last_run(config.name):
        for key, (record, *_) in execution.outputs.items():
            made[key] = getattr(standard_artifacts, record.type)()
            made[key].uri = record.uri
            if "split_names" in record.properties:
                made[key].split_names = record.properties["split_names"]
    return made


def _statistics(made: dict[str, types.Artifact], split: str) -> dict[str, Any]:
    directory = Path(artifact_utils.get_split_uri([made["statistics"]], split))
    found: dict[str, Any] = json_format.MessageToDict(
        tfdv.load_stats_binary(str(directory / "FeatureStats.pb")).datasets[0]
    )
    return found


def _leaves(value: Any) -> Iterator[Any]:
    """Keys and values in order."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield key
            yield from _leaves(value[key])
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


@pytest.fixture(scope="module")
def data_in_memory(tmp_path_factory: pytest.TempPathFactory) -> dict[str, types.Artifact]:
    return _data(Direct(), tmp_path_factory.mktemp("memory"))


@pytest.mark.long
def test_examples_statistics_and_transform_on_two_workers_equal_those_in_memory(
    workers: BeamRunner, data_in_memory: dict[str, types.Artifact], tmp_path: Path
) -> None:
    made = _data(workers, tmp_path)
    counts = {}
    for split in ("train", "eval"):
        for key in ("examples", "transformed_examples"):
            records, expected_records = (list(read_split([of[key]], split)) for of in (made, data_in_memory))
            assert fingerprint(records) == fingerprint(expected_records)  # in whatever order they lie
            counts[split, key] = len(records)
        found, expected = (list(_leaves(_statistics(of, split))) for of in (made, data_in_memory))
        assert len(found) == len(expected) > 100
        for one, other in zip(found, expected, strict=True):
            assert one == (pytest.approx(other, rel=1e-9) if isinstance(other, float) else other)
    assert counts["train", "examples"] + counts["eval", "examples"] == 1797
    assert counts["train", "transformed_examples"] == counts["train", "examples"]
    schemas = [Path(of["schema"].uri, "schema.pbtxt").read_text() for of in (made, data_in_memory)]
    assert schemas[0] == schemas[1]
