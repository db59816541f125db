"""Models that share one Edge TPU, compiled together in a pipeline: by a double of the compiler, see README."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.orchestration import metadata
from tfx.proto import pusher_pb2
from tfx.types import channel_utils, standard_artifacts

from components.edge_tpu_group_compiler import EdgeTPUGroupCompiler
from components.push_destination import PushDestination
from components.quantization.contract import CONTRACT_FILE
from components.targets import CompileError
from components.targets.edge_tpu import CompilerOptions
from components.versioned_pusher import Executor as VersionedExecutor

from contract_cases import contract_of, image_model
from edge_tpu_compilers import Double, knowing, replaying

_CHANNEL = channel_utils.as_channel([standard_artifacts.Model()])
_NAMES = {"rare": "mobilenet_v1_0.5_160_quant", "often": "mobilenet_v1_0.25_128_quant"}


def _model(directory: Path, content: bytes) -> str:
    serving = directory / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "tflite").write_bytes(content)
    return str(directory)


def _run(
    directory: Path, uris: dict[str, str], double: Double, num_segments: int = 1, **arguments: Any
) -> list[metadata_store_pb2.Artifact]:
    """Runs importers, the compiler and the stock Pusher with our executor; returns the compiled groups."""
    importers = {
        name: tfx.dsl.Importer(source_uri=uri, artifact_type=standard_artifacts.Model).with_id(f"Import_{name}")
        for name, uri in uris.items()
    }
    compiler = EdgeTPUGroupCompiler(
        models={name: importer.outputs["result"] for name, importer in importers.items()},
        options=CompilerOptions(compiler=str(double.path), num_segments=num_segments),
        **arguments,
    )
    filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(directory / "pushed"))
    pusher = tfx.components.Pusher(
        model=compiler.outputs["compiled_group"],
        push_destination=pusher_pb2.PushDestination(filesystem=filesystem),
        custom_executor_spec=executor_spec.ExecutorClassSpec(VersionedExecutor),
    )
    connection = metadata.sqlite_metadata_connection_config(str(directory / "metadata.sqlite"))
    tfx.orchestration.LocalDagRunner().run(
        tfx.dsl.Pipeline(
            pipeline_name="group",
            pipeline_root=str(directory / "root"),
            components=[*importers.values(), compiler, pusher],
            metadata_connection_config=connection,
        )
    )
    with metadata.Metadata(connection) as store:
        return [a for a in store.store.get_artifacts_by_type("Model") if "EdgeTPUGroupCompiler" in a.uri]


@pytest.mark.slow
def test_group_is_compiled_pushed_and_recorded_as_one(shared: Path, tmp_path: Path) -> None:
    contents = {name: (shared / "edgetpu" / "models" / f"{file}.tflite").read_bytes() for name, file in _NAMES.items()}
    uris = {name: _model(tmp_path / name, content) for name, content in contents.items()}
    built = contract_of(
        image_model(), lambda raw: {"image": raw["image"]}, {"image": np.zeros((2, 8, 8, 3), "float32")}
    )
    (tmp_path / "often" / "Format-Serving" / CONTRACT_FILE).write_text(built.contract.to_json())
    double = knowing(tmp_path / "double", shared, memory_bytes=900_000)
    (artifact,) = _run(tmp_path, uris, double, calls_per_second={"often": 30})
    serving = Path(artifact.uri) / "Format-Serving"
    manifest = json.loads((serving / "group.json").read_text())
    assert [(member["name"], member["file"]) for member in manifest["members"]] == [
        ("often", "often/tflite"),
        ("rare", "rare/tflite"),
    ]
    assert [one["order"] for one in manifest["orders"]] == [["often", "rare"], ["rare", "often"]]
    found = artifact.custom_properties
    assert found["order"].string_value == "often,rare"
    assert found["streamed_bytes_of_often"].int_value == 0 < found["streamed_bytes_of_rare"].int_value
    for name, content in contents.items():
        compiled = (serving / name / "tflite").read_bytes()
        assert compiled != content
        assert found[f"sha256_of_{name}"].string_value == hashlib.sha256(compiled).hexdigest()
        assert found[f"parent_sha256_of_{name}"].string_value == hashlib.sha256(content).hexdigest()
        report = json.loads((serving / name / "compile_report.json").read_text())
        assert report["compiled"] is True
    contract = json.loads((serving / "often" / CONTRACT_FILE).read_text())
    assert contract["tflite_sha256"] == found["sha256_of_often"].string_value
    assert not (serving / "rare" / CONTRACT_FILE).exists()
    assert {path.name for path in (Path(artifact.uri) / "compiler").iterdir()} == {"often.rare", "rare.often"}
    destination = PushDestination(str(tmp_path / "pushed"))
    pushed = tmp_path / "pushed" / destination.latest()
    assert (pushed / "rare" / "tflite").read_bytes() == (serving / "rare" / "tflite").read_bytes()
    version = destination.manifest(destination.latest())
    assert version is not None
    assert {"group.json", "often/tflite", "rare/tflite"} <= set(version.files)


@pytest.mark.slow
def test_segments_of_a_model_are_one_artifact_in_the_order_in_which_they_run(shared: Path, tmp_path: Path) -> None:
    content = (shared / "edgetpu" / "models" / f"{_NAMES['often']}.tflite").read_bytes()
    double = knowing(tmp_path / "double", shared)
    (artifact,) = _run(tmp_path, {"large": _model(tmp_path / "large", content)}, double, num_segments=2)
    names = ["model_segment_0_of_2", "model_segment_1_of_2"]
    serving = Path(artifact.uri) / "Format-Serving"
    assert {path.name for path in serving.iterdir()} == {*names, "group.json"}
    manifest = json.loads((serving / "group.json").read_text())
    assert [member["file"] for member in manifest["members"]] == [f"{name}/tflite" for name in names]
    assert artifact.custom_properties["order"].string_value == ",".join(names)
    assert artifact.custom_properties["parent_sha256_of_large"].string_value == hashlib.sha256(content).hexdigest()
    destination = PushDestination(str(tmp_path / "pushed"))
    for name in names:
        pushed = tmp_path / "pushed" / destination.latest() / name / "tflite"
        sha256 = artifact.custom_properties[f"sha256_of_{name}"].string_value
        assert hashlib.sha256(pushed.read_bytes()).hexdigest() == sha256


def test_pusher_refuses_a_group_of_which_a_file_was_changed_since(tmp_path: Path) -> None:
    artifact = standard_artifacts.Model()
    artifact.uri = str(tmp_path / "group")
    for name in ("one", "two"):
        path = tmp_path / "group" / "Format-Serving" / name / "tflite"
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
        artifact.set_string_custom_property(f"sha256_of_{name}", hashlib.sha256(name.encode()).hexdigest())
    destination = pusher_pb2.PushDestination.Filesystem(base_directory=str(tmp_path / "pushed"))
    text = json_format.MessageToJson(pusher_pb2.PushDestination(filesystem=destination))

    def push() -> None:
        pushed = standard_artifacts.PushedModel()
        pushed.uri = str(tmp_path / "archive")
        properties = {"push_destination": text, "custom_config": "null"}
        VersionedExecutor().Do({"model": [artifact]}, {"pushed_model": [pushed]}, properties)

    push()
    version = PushDestination(str(tmp_path / "pushed")).latest()
    (tmp_path / "group" / "Format-Serving" / "two" / "tflite").write_bytes(b"other")
    with pytest.raises(ValueError, match="two/tflite: got sha256 .* which the compiler made"):
        push()
    assert PushDestination(str(tmp_path / "pushed")).latest() == version


def test_group_compiles_for_kubeflow_with_its_models_by_name(tmp_path: Path) -> None:
    importers = {
        name: tfx.dsl.Importer(source_uri=f"gs://b/{name}", artifact_type=standard_artifacts.Model).with_id(name)
        for name in ("detector", "face-id")
    }
    compiler = EdgeTPUGroupCompiler(
        models={name: importer.outputs["result"] for name, importer in importers.items()},
        calls_per_second={"detector": 30},
    )
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="group", pipeline_root="gs://b/root", components=[*importers.values(), compiler]
    )
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(
        config=tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image"),
        output_dir=str(tmp_path),
        output_filename="job.json",
    )
    runner.run(pipeline)
    tasks = json.loads((tmp_path / "job.json").read_text())["pipelineSpec"]["root"]["dag"]["tasks"]
    inputs = tasks["EdgeTPUGroupCompiler"]["inputs"]
    producers = {name: given["taskOutputArtifact"]["producerTask"] for name, given in inputs["artifacts"].items()}
    assert producers == {"detector": "detector", "face-id": "face-id"}
    calls = inputs["parameters"]["calls_per_second"]["runtimeValue"]["constantValue"]["stringValue"]
    assert json.loads(calls) == {"detector": 30.0, "face-id": 1.0}


def test_group_is_not_there_and_the_compiler_s_files_are_kept_when_it_fails(tmp_path: Path) -> None:
    uris = {name: _model(tmp_path / name, image_model()) for name in ("one", "two")}
    double = replaying(tmp_path / "double", [{"output": "Model not quantized\n", "exit": 1}])
    with pytest.raises(CompileError, match="All that the compiler wrote is in .*[.]failed"):
        _run(tmp_path, uris, double)
    (kept,) = (tmp_path / "root").glob("EdgeTPUGroupCompiler/compiled_group/*.failed")
    # What the compiler wrote of one order, and the error: another order would be refused as well.
    assert len({"one.two", "two.one"} & {path.name for path in kept.iterdir()}) == 1
    assert (kept / "error.log").exists()
    assert not Path(str(kept).removesuffix(".failed")).exists()
    assert not (tmp_path / "pushed").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"models": {"one": _CHANNEL}}, "models of a group: got one, expected two or more"),
        ({"models": {"one": _CHANNEL, "a/b": _CHANNEL}}, "name of a model in a group: got 'a/b'"),
        ({"models": {"one": _CHANNEL, "options": _CHANNEL}}, "models: got options, which the component calls"),
        ({"calls_per_second": {"three": 1.0}}, "calls_per_second: got three, expected some of one, two"),
        ({"calls_per_second": {"two": 0.0}}, "calls_per_second of two: got 0.0, expected more than 0"),
        ({"options": CompilerOptions(num_segments=2)}, "num_segments: got one, two, expected one model to split"),
        ({"models": {"one": _CHANNEL, "self": _CHANNEL}}, "models: got self, which the component calls"),
        (
            {"models": {"one": _CHANNEL}, "calls_per_second": {"one": 2}, "options": CompilerOptions(num_segments=2)},
            "num_segments: got one, expected one model to split, without calls_per_second",
        ),
        ({"models": {}, "options": CompilerOptions(num_segments=2)}, "num_segments: got no model, expected one"),
    ],
)
def test_group_compiler_refuses_before_anything_runs(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        EdgeTPUGroupCompiler(**{"models": {"one": _CHANNEL, "two": _CHANNEL}, **arguments})
