"""What the pipelines of this project do not have, and other pipelines with these components do: importers, resolvers,
conditions. Compiled by TFX and run as the service would, so that the service of the other tests can be trusted.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx import components
from tfx.dsl.components.common import importer, resolver
from tfx.dsl.experimental.conditionals import conditional
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2
from tfx.types import channel, standard_artifacts
from tfx.types.standard_artifacts import Model, ModelBlessing

from components.retraining.spans import SpanSource
from components.span_example_gen import span_example_gen

from pipeline_service import PipelineService, container_environment

Json = dict[str, Any]
pytestmark = pytest.mark.extended


@pytest.fixture
def service(tmp_path: Path) -> PipelineService:
    def read(uri: str) -> bytes | None:
        return Path(uri).read_bytes() if Path(uri).exists() else None

    environment = container_environment(Path(sys.executable).parent.parent, tmp_path, {})
    return PipelineService(environment, tmp_path / "logs", read)


def _compile(root: Path, nodes: list[Any]) -> Json:
    config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(default_image="image:1", use_pipeline_spec_2_1=True)
    pipeline = Pipeline(pipeline_name="small", pipeline_root=str(root / "root"), components=nodes, enable_cache=True)
    job: Json = kubeflow_v2_dag_runner.KubeflowV2DagRunner(config).run(pipeline, write_out=False)
    return job


def _model(directory: Path, content: bytes) -> str:
    (directory / "Format-Serving").mkdir(parents=True)
    (directory / "Format-Serving" / "tflite").write_bytes(content)
    return str(directory)


def _pusher(root: Path, model: channel.BaseChannel) -> components.Pusher:
    filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(root / "pushed"))
    return components.Pusher(model=model, push_destination=pusher_pb2.PushDestination(filesystem=filesystem))


def _import(name: str, uri: str, kind: type, properties: Json | None = None) -> importer.Importer:
    node = importer.Importer(source_uri=uri, artifact_type=kind, custom_properties=properties)
    return node.with_id(name)


@pytest.mark.parametrize(("blessed", "state"), [(1, "SUCCEEDED"), (0, "NOT_TRIGGERED")])
def test_condition_decides_whether_a_task_runs(
    tmp_path: Path, service: PipelineService, blessed: int, state: str
) -> None:
    model = _import("model", _model(tmp_path / "model", b"a model"), Model)
    blessing = _import("blessing", str(tmp_path), ModelBlessing, {"blessed": blessed})
    with conditional.Cond(blessing.outputs["result"].future()[0].custom_property("blessed") == 1):
        pusher = _pusher(tmp_path, model.outputs["result"])
    run = service.run(_compile(tmp_path, [model, blessing, pusher]))
    assert run.state == "SUCCEEDED"
    assert run.tasks["Pusher"].state == state, run.tasks["Pusher"].error
    pushed = [path.read_bytes() for path in (tmp_path / "pushed").rglob("tflite")]
    assert pushed == ([b"a model"] if blessed else [])


def test_resolver_finds_the_latest_blessed_model(
    tmp_path: Path, service: PipelineService, register: Callable[..., Json]
) -> None:
    for name, blessed in (("old", 1), ("good", 1), ("refused", 0)):
        model = register(service, "Model", _model(tmp_path / name, name.encode()), {})
        register(service, "ModelBlessing", str(tmp_path), {"blessed": blessed, "current_model_id": model["name"]})
    latest = resolver.Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=channel.Channel(type=Model),
        model_blessing=channel.Channel(type=ModelBlessing),
    ).with_id("latest")
    run = service.run(_compile(tmp_path, [latest, _pusher(tmp_path, latest.outputs["model"])]))
    assert run.tasks["Pusher"].state == "SUCCEEDED", run.tasks["Pusher"].error
    assert [path.read_bytes() for path in (tmp_path / "pushed").rglob("tflite")] == [b"good"]


@pytest.fixture
def register() -> Callable[..., Json]:
    """Puts an artifact of an earlier run into the service's store."""

    def put(service: PipelineService, kind: str, uri: str, metadata: Json) -> Json:
        assert hasattr(standard_artifacts, kind)
        return service.artifact({"instanceSchema": f"title: tfx.{kind}\ntype: object\n"}, uri, metadata)

    return put


@pytest.mark.long
def test_examples_are_of_the_window_that_the_executor_finds_behind_the_driver_s_span(
    tmp_path: Path, service: PipelineService
) -> None:
    for span in (7, 8, 9, 10):
        _write_span(tmp_path / "data" / f"span-{span:02}", span)
    (tmp_path / "data" / "span-08" / "_SUCCESS").unlink()
    source = SpanSource(pattern=f"{tmp_path}/data/span-{{SPAN:2}}/*.tfrecord", window=3)
    job = _compile(tmp_path, [span_example_gen(source, example_gen_pb2.Output(), "ImportExampleGen")])
    run = service.run(job)
    assert run.state == "SUCCEEDED", run.tasks["ImportExampleGen"].error
    examples = run.output("ImportExampleGen", "examples")
    files = [str(path) for path in Path(examples["uri"]).rglob("*.gz")]
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
    spans = [tf.train.Example.FromString(one).features.feature["span"].int64_list.value[0] for one in records]
    assert sorted(spans) == [7] * 7 + [9] * 9 + [10] * 10
    assert json.loads(examples["metadata"]["spans"]) == [7, 9, 10]
    assert service.run(job).tasks["ImportExampleGen"].state == "SKIPPED"
    _write_span(tmp_path / "data" / "span-11", 11)
    (tmp_path / "data" / "span-11" / "_SUCCESS").unlink()
    failed = service.run(job).tasks["ImportExampleGen"]
    assert failed.state == "FAILED"
    assert "span 11 is the newest whose files match and is not complete" in failed.error


def _write_span(directory: Path, span: int) -> None:
    """As many examples as the span's number."""
    directory.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(directory / "part.tfrecord")) as writer:
        for _ in range(span):
            example = tf.train.Example()
            example.features.feature["span"].int64_list.value.append(span)
            writer.write(example.SerializeToString())
    (directory / "_SUCCESS").touch()
