"""What Vertex's ML Metadata is told: the file that TFX's container entry point writes behind an executor."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor
from tfx.proto import pusher_pb2

from components import model_artifact
from components.evaluation.smoke_settings import Smoke, SmokeSettings
from components.quantization.contract.device_files import write_device_files
from components.quantization.contract.golden import golden_vectors

from contract_cases import contract_of, image_model, pixels, scaled

_STORE = "projects/1/locations/here/metadataStores/default/artifacts"


def _artifact(kind: str, uri: Path, **metadata: Any) -> dict[str, Any]:
    name = f"{_STORE}/{abs(hash(uri))}"
    schema = {"instanceSchema": f"title: tfx.{kind}\ntype: object\n"}
    return {"artifacts": [{"name": name, "type": schema, "uri": str(uri), "metadata": metadata}]}


def _run(directory: Path, executor: str, inputs: Any, outputs: Any, properties: dict[str, str]) -> dict[str, Any]:
    """Runs an executor as a container of Vertex does; returns the metadata of its only output."""
    told = {
        "inputs": {"artifacts": inputs, "parameterValues": properties},
        "outputs": {"artifacts": outputs, "outputFile": str(directory / "executor_output.json")},
    }
    spec = {"parameters": {name: {"parameterType": "STRING"} for name in properties}}
    command = ["--executor_class_path", executor, "--json_serialized_invocation_args", json.dumps(told)]
    command += ["--json_serialized_inputs_spec_args", json.dumps(spec)]
    kubeflow_v2_run_executor._run_executor(*kubeflow_v2_run_executor._parse_flags(["run", *command]))
    ((artifacts,),) = [
        output["artifacts"]
        for output in json.loads((directory / "executor_output.json").read_text())["artifacts"].values()
    ]
    metadata: dict[str, Any] = artifacts["metadata"]
    return metadata


def _model(directory: Path) -> Path:
    built = contract_of(image_model(), scaled, {"pixels": pixels()})
    serving = directory / model_artifact.SERVING_DIR
    serving.mkdir(parents=True)
    write_device_files(
        serving,
        image_model(),
        built.contract,
        golden_vectors(image_model(), built.contract, built.inputs, built.sources),
    )
    return directory


def _push(directory: Path, model: Path, sha256: str) -> dict[str, Any]:
    filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(directory / "pushed"))
    destination = json_format.MessageToJson(pusher_pb2.PushDestination(filesystem=filesystem))
    return _run(
        directory / model.name,
        "components.versioned_pusher.Executor",
        {"model": _artifact("Model", model, sha256=sha256)},
        {"pushed_model": _artifact("PushedModel", directory / f"archive of {model.name}")},
        {"push_destination": destination, "custom_config": "null"},
    )


def test_vertex_is_told_the_hashes_of_a_push_and_what_it_replaced(tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        model = tmp_path / name
        (model / model_artifact.SERVING_DIR).mkdir(parents=True)
        (model / model_artifact.SERVING_DIR / "tflite").write_bytes(name.encode())
        found.append(_push(tmp_path, model, hashlib.sha256(name.encode()).hexdigest()))
    first, second = (hashlib.sha256(name).hexdigest() for name in (b"first", b"second"))
    assert [one["sha256"] for one in found] == [first, second]
    assert [one["parent_sha256"] for one in found] == [first, second]
    assert [one["replaced_sha256"] for one in found] == ["", first]
    assert [one["replaced_version"] for one in found] == ["", found[0]["pushed_version"]]
    assert found[1]["pushed"] == 1


@pytest.mark.slow
def test_vertex_is_told_a_verdict_with_its_reasons_and_whose_it_is(tmp_path: Path) -> None:
    found = _run(
        tmp_path,
        "components.edge_infra_validator.Executor",
        {"model": _artifact("Model", _model(tmp_path / "model"), sha256="ab" * 32)},
        {"blessing": _artifact("InfraBlessing", tmp_path / "blessing")},
        {"smoke": Smoke.of("cpu", SmokeSettings()).to_json(), "toolchain": ""},
    )
    assert (found["blessed"], found["reason_codes"], found["model_sha256"]) == (1, "holds", "ab" * 32)
    assert all(reason.startswith("holds: ") for reason in json.loads(found["reasons"]))
