"""EdgeInfraValidator writes what the stock Pusher honours."""

import hashlib
import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from tfx import types
from tfx.components.pusher import executor as stock_pusher
from tfx.proto import pusher_pb2
from tfx.types import channel_utils, standard_artifacts

from components import model_artifact
from components.edge_infra_validator import EdgeInfraValidator, Executor
from components.evaluation.smoke_process import Limits
from components.evaluation.smoke_settings import SmokeSettings
from components.quantization.contract.device_files import write_device_files
from components.quantization.contract.golden import golden_vectors

from contract_cases import contract_of, image_model, pixels, scaled

_CHANNEL = channel_utils.as_channel([standard_artifacts.Model()])


def _model(directory: Path, tflite: bytes) -> types.Artifact:
    """What the converter published, of which the file may have been replaced."""
    artifact = standard_artifacts.Model()
    artifact.uri = str(directory)
    built = contract_of(image_model(), scaled, {"pixels": pixels()})
    vectors = golden_vectors(image_model(), built.contract, built.inputs, built.sources)
    with model_artifact.staged_output(artifact) as staged:
        serving = model_artifact.serving_directory(staged)
        write_device_files(serving, image_model(), built.contract, vectors)
        contract = json.loads((serving / "io_contract.json").read_text())
        contract["tflite_sha256"] = hashlib.sha256(tflite).hexdigest()
        (serving / "io_contract.json").write_text(json.dumps(contract))
        (serving / "tflite").write_bytes(tflite)
    return artifact


def _validate(
    directory: Path, model: types.Artifact, compiled: types.Artifact | None = None, **arguments: object
) -> types.Artifact:
    blessing = standard_artifacts.InfraBlessing()
    blessing.uri = str(directory / "blessing")
    component = EdgeInfraValidator(model=_CHANNEL, profile="cpu", **arguments)
    given = {"model": [model]} | ({} if compiled is None else {"compiled_model": [compiled]})
    Executor().Do(given, {"blessing": [blessing]}, component.exec_properties)
    return blessing


def _pushed(directory: Path, model: types.Artifact, infra_blessing: types.Artifact) -> bool:
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(directory / "archive")
    destination = pusher_pb2.PushDestination.Filesystem(base_directory=str(directory / "pushed"))
    properties = {
        "push_destination": json_format.MessageToJson(pusher_pb2.PushDestination(filesystem=destination)),
        "custom_config": "null",
    }
    inputs = {"model": [model], "infra_blessing": [infra_blessing]}
    stock_pusher.Executor().Do(inputs, {"pushed_model": [pushed]}, properties)
    return pushed.get_int_custom_property("pushed") == 1 and any((directory / "pushed").rglob("tflite"))


def test_stock_pusher_pushes_what_runs(tmp_path: Path) -> None:
    model = _model(tmp_path / "model", image_model())
    model.set_string_custom_property("sha256", "of the model")
    blessing = _validate(tmp_path, model, settings=SmokeSettings(file_bytes=10**6))
    assert blessing.get_string_custom_property("model_sha256") == "of the model"
    assert sorted(path.name for path in Path(blessing.uri).iterdir()) == ["INFRA_BLESSED", "verdict.json"]
    assert blessing.get_string_custom_property("reason_codes") == "holds"
    assert _pushed(tmp_path, model, blessing)


@pytest.mark.parametrize(
    ("tflite", "settings", "code"),
    [
        (image_model()[:-100], SmokeSettings(), "unreadable"),
        (image_model(), SmokeSettings(file_bytes=100), "budget"),
        (image_model(), SmokeSettings(limits=Limits(seconds=1e-3)), "crashed"),
    ],
    ids=["corrupt", "large", "slow"],
)
def test_stock_pusher_does_not_push_what_does_not_run(
    tmp_path: Path, tflite: bytes, settings: SmokeSettings, code: str
) -> None:
    model = _model(tmp_path / "model", tflite)
    blessing = _validate(tmp_path, model, settings=settings)
    assert (Path(blessing.uri) / "INFRA_NOT_BLESSED").exists()
    verdict = json.loads((Path(blessing.uri) / "verdict.json").read_text())
    assert not verdict["blessed"]
    assert code in blessing.get_string_custom_property("reason_codes")
    assert not _pushed(tmp_path, model, blessing)


@pytest.mark.long
def test_stock_pusher_does_not_push_another_file_than_the_one_that_runs(tmp_path: Path) -> None:
    model = _model(tmp_path / "model", image_model())
    same = _model(tmp_path / "same", image_model())
    blessing = _validate(tmp_path, model, same)
    assert (Path(blessing.uri) / "INFRA_BLESSED").exists()
    assert _pushed(tmp_path, same, blessing)
    cut = _model(tmp_path / "cut", image_model()[:-100])
    blessing = _validate(tmp_path / "cut", model, cut)
    assert (Path(blessing.uri) / "INFRA_NOT_BLESSED").exists()
    assert not _pushed(tmp_path / "cut", cut, blessing)


def test_constructor_raises_when_there_is_no_such_profile() -> None:
    with pytest.raises(ValueError, match="toaster"):
        EdgeInfraValidator(model=_CHANNEL, profile="toaster")
