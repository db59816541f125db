"""Whom a run on this machine says is to blame, and that it says so."""

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import absl.logging
import pytest
import tensorflow as tf
from tfx.orchestration.pipeline import Pipeline

from components.delivery.manifest import build_manifest
from components.push_destination import PushDestination
from components.retraining.policy import RetrainingPolicy
from components.retraining.spans import SpanSource
from pipelines import local_run
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.local_run import run_and_show
from pipelines.metadata import ArtifactRecord, ExecutionRecord
from pipelines.metadata_connection import parse_connection
from pipelines.pipeline import data_components

_BRIGHTEST = 16.0  # as pipelines/configs/stream.pbtxt has it


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """A run shows what TFX logs; that ends with the test."""
    logger = absl.logging.get_absl_logger()
    before = list(logger.handlers)
    yield
    logger.handlers[:] = before


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    """A run on spans 3 to 6, of 20 good examples each."""
    for span in (3, 4, 5, 6):
        _write_span(tmp_path, span)
    pattern = f"{tmp_path}/data/span-{{SPAN}}/*.tfrecord"
    source = SpanSource(pattern=pattern, window=4, selected=(3, 4, 5, 6))
    return dataclasses.replace(load_config("stream"), root=str(tmp_path / "root"), spans=source, eval_buckets=2)


def _write_span(base: Path, span: int, brightest: float = _BRIGHTEST) -> Path:
    directory = base / "data" / f"span-{span}"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "part.tfrecord"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for index in range(20):
            example = tf.train.Example()
            example.features.feature["image"].float_list.value.extend([brightest, index / 2] + [0.0] * 62)
            example.features.feature["label"].int64_list.value.append(index % 10)
            writer.write(example.SerializeToString())
    (directory / "_SUCCESS").touch()
    return file


def _run(config: PipelineConfig, tmp_path: Path) -> tuple[int | str, dict[str, Any] | None]:
    """The exit status, or the mistake, and the report if there is one."""
    report = tmp_path / "6.1.report"
    came: int | str
    try:
        came = run_and_show(config, "local", "", time.monotonic(), report)
    except ValueError as error:
        came = str(error)
    return came, json.loads(report.read_text()) if report.exists() else None


def _fails(monkeypatch: pytest.MonkeyPatch, component: str, error: Exception) -> None:
    """Lets a run fail so, without running it."""

    def fail(config: Any, runner: Any, console: Any, progress: Any, log_file: Any) -> None:
        progress.current = component
        raise error

    monkeypatch.setattr(local_run, "_run", fail)


def _data_only(config: PipelineConfig) -> Pipeline:
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.pipeline_root,
        components=data_components(config),
        metadata_connection_config=parse_connection(config.metadata_url).configuration(),
        beam_pipeline_args=list(config.beam_pipeline_args),
    )


@pytest.mark.extended
def test_run_names_the_span_of_the_window_that_breaks_the_schema(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_span(tmp_path, 4, brightest=160.0)
    monkeypatch.setattr("pipelines.pipeline.create_pipeline", _data_only)
    came, report = _run(config, tmp_path)
    assert report
    assert (report["fault"], report["broken_span"], report["spans"]) == ("examples", 4, [3, 4, 5, 6])
    assert report["error"].startswith("ExampleValidator: span 4: its examples break the schema: image: ")
    assert str(came).startswith(report["error"])


@pytest.mark.slow
def test_run_names_no_span_when_none_breaks_the_schema_by_itself(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.spans
    two = dataclasses.replace(config, spans=dataclasses.replace(config.spans, selected=(5, 6)))
    _fails(monkeypatch, "ExampleValidator", local_run.BrokenExamplesError("the examples break the schema"))
    _, report = _run(two, tmp_path)
    assert report
    assert (report["fault"], report["broken_span"]) == ("examples", None)
    assert report["error"] == "ExampleValidator: the examples break the schema"


def test_run_names_its_span_when_its_window_has_no_other(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.spans
    alone = dataclasses.replace(config, spans=dataclasses.replace(config.spans, selected=(6,)))
    _fails(monkeypatch, "ExampleValidator", local_run.BrokenExamplesError("the examples break the schema"))
    _, report = _run(alone, tmp_path)
    assert report
    assert report["broken_span"] == 6


@pytest.mark.parametrize("component", ["ImportExampleGen", "Transform"])
def test_run_names_the_span_that_is_corrupt_beyond_what_is_checked_before(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, component: str
) -> None:
    monkeypatch.setattr("pipelines.inputs._CHECKED_BYTES", 1)
    file = _write_span(tmp_path, 5)
    os.truncate(file, file.stat().st_size - 3)
    _fails(monkeypatch, component, RuntimeError("could not read [while running 'Read']"))
    came, report = _run(config, tmp_path)
    assert report
    assert (report["fault"], report["broken_span"]) == ("examples", 5)
    assert "part.tfrecord is corrupt after record 19" in report["error"]
    assert str(came).startswith(f"{component}: ")


def test_run_blames_the_component_when_the_examples_are_good(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fails(monkeypatch, "Transform", RuntimeError("a bug [while running 'Map']"))
    came, report = _run(config, tmp_path)
    assert came == 1
    assert report
    assert (report["fault"], report["error"]) == ("component", "Transform: a bug")


def test_run_cannot_begin_and_reports_nothing_when_the_schema_file_is_not_there(
    config: PipelineConfig, tmp_path: Path
) -> None:
    mistaken = dataclasses.replace(config, schema_file=str(tmp_path / "typo.pbtxt"))
    came, report = _run(mistaken, tmp_path)
    assert str(came).startswith(f"schema_file '{tmp_path}/typo.pbtxt' cannot be read: ")
    assert report is None


def test_run_cannot_begin_and_reports_nothing_when_it_fails_before_any_component(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fails(monkeypatch, "", ModuleNotFoundError("No module named 'sklearn'"))
    assert _run(config, tmp_path) == (2, None)


def test_run_names_the_span_whose_file_cannot_be_read(config: PipelineConfig, tmp_path: Path) -> None:
    (tmp_path / "data" / "span-3" / "directory.tfrecord").mkdir()
    _, report = _run(config, tmp_path)
    assert report
    assert (report["fault"], report["broken_span"]) == ("examples", 3)
    assert "span 3 cannot be read: " in report["error"]


def test_run_reports_its_verdict_when_it_cannot_roll_back(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, retraining=RetrainingPolicy(champion_floor=0.9))
    (plan,) = config.plans
    destination = PushDestination(plan.push_uri)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tflite").write_text("c")
    manifest = build_manifest(tmp_path / "model", facts={"content_sha256": "c" * 64}, run_id="one", pushed_at="now")
    version = destination.push(tmp_path / "model", manifest)
    (Path(destination.path(version)) / "manifest.json").write_text("{")
    executions = [
        _execution("last_blessed", "model", {"content_sha256": "c" * 64}),
        _execution("QuantizedEvaluator", "evaluation", {"last_blessed_accuracy": 0.8}),
    ]
    told = {"blessed": False, "reasons": ("fails: a gate",), "pushed_to": "", "drift": None}
    refused = SimpleNamespace(target=plan.target, **told)
    monkeypatch.setattr(local_run, "_run", lambda *_: None)
    monkeypatch.setattr(local_run, "_show", lambda *_: [refused])
    monkeypatch.setattr(
        "pipelines.metadata.MetadataStore", lambda _: SimpleNamespace(last_run=lambda pipeline: executions)
    )
    came, report = _run(config, tmp_path)
    assert came == 3
    assert report
    gate, rollback = report["verdict"]["reasons"]
    assert gate == "fails: a gate"
    assert rollback.startswith(f"the rollback failed: {destination.path(version)}/manifest.json: ")


def _execution(component: str, key: str, properties: dict[str, Any]) -> ExecutionRecord:
    artifact = ArtifactRecord(id=1, type="any", uri="", properties=properties)
    facts = {"id": 1, "cached": False, "complete": True, "seconds": 1.0, "started_s": 0.0}
    return ExecutionRecord(component=component, outputs={key: [artifact]}, **facts)  # type: ignore[arg-type]
