import dataclasses
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components.delivery.manifest import build_manifest
from components.evaluation.gates import Gates
from components.last_blessed import ORIGIN_KEY, LastBlessedModelStrategy
from components.push_destination import PushDestination
from components.quantization.contract.file_metadata import ModelIdentity, content_sha256, with_metadata
from components.quantization.conversion import flatbuffer
from components.retraining.policy import RetrainingPolicy
from components.withdrawn_models import withdrawn_models
from pipelines.champion import Champion, champion_of, roll_back_below, rolled_back_before
from pipelines.configs import load_config
from pipelines.metadata import ArtifactRecord, ExecutionRecord, Value

from contract_cases import image_model


def _model(name: str) -> bytes:
    model = flatbuffer.read_object(image_model())
    model.description = name.encode()
    return flatbuffer.write_object(model)


_SHA256 = {name: content_sha256(_model(name)) for name in "abc"}


@pytest.fixture
def destination(tmp_path: Path) -> PushDestination:
    """A push directory to which models a, b and c were pushed, in this order."""
    destination = PushDestination(str(tmp_path / "pushed"))
    for name in _SHA256:
        _push(destination, tmp_path, name)
    return destination


def _push(destination: PushDestination, tmp_path: Path, name: str, run: str = "") -> str:
    """Pushes a model as a run makes it: the same in each run but for what names the run, and all hashes of that."""
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    (directory / "tflite").write_bytes(with_metadata(_model(name), ModelIdentity(run_id=run or name)))
    facts = {"content_sha256": _SHA256[name], "parent_sha256": f"of run {run or name}"}
    return destination.push(directory, build_manifest(directory, facts=facts, run_id=run or name, pushed_at="now"))


def test_roll_back_goes_to_the_version_before_when_the_champion_is_below_the_floor(
    destination: PushDestination,
) -> None:
    first, second, third = (move.version for move in destination.history())
    said = roll_back_below(0.9, Champion(content_sha256=_SHA256["c"], value=0.8), destination.uri)
    assert said == f"rolled back to {second}: {third} has 0.8000 on this span, below champion_floor=0.9"
    assert destination.latest() == second
    # The same again, in a run that began before.
    assert roll_back_below(0.9, Champion(content_sha256=_SHA256["c"], value=0.8), destination.uri) == ""
    assert destination.latest() == second
    assert rolled_back_before(destination.uri) == (
        f"{second} is the latest by a rollback from {third}, and nothing was pushed since"
    )
    assert roll_back_below(0.9, Champion(content_sha256=_SHA256["b"], value=0.7), destination.uri).startswith(
        "rolled back to"
    )
    assert destination.latest() == first
    said = roll_back_below(0.9, Champion(content_sha256=_SHA256["a"], value=0.7), destination.uri)
    assert said.startswith("not rolled back, as nothing was pushed before: ")
    assert destination.latest() == first


def test_roll_back_and_withdrawal_know_a_model_that_another_run_made_again(
    destination: PushDestination, tmp_path: Path
) -> None:
    _, second, third = (move.version for move in destination.history())
    assert _push(destination, tmp_path, "c", run="a later one") == third
    assert roll_back_below(0.9, Champion(content_sha256=_SHA256["c"], value=0.8), destination.uri)
    assert destination.latest() == second
    assert withdrawn_models(destination) == {_SHA256["c"]}


def test_roll_back_changes_nothing_when_the_floor_is_kept_or_nothing_was_pushed(
    destination: PushDestination, tmp_path: Path
) -> None:
    latest = destination.latest()
    assert roll_back_below(0.9, Champion(content_sha256=_SHA256["c"], value=0.9), destination.uri) == ""
    assert destination.latest() == latest
    assert roll_back_below(0.9, Champion(content_sha256=_SHA256["c"], value=0.1), str(tmp_path / "other")) == ""
    assert rolled_back_before(destination.uri) == rolled_back_before(str(tmp_path / "other")) == ""


def _execution(component: str, key: str, properties: dict[str, Value]) -> ExecutionRecord:
    artifact = ArtifactRecord(id=1, type="any", uri="", properties=properties)
    facts = {"id": 1, "cached": False, "complete": True, "seconds": 1.0, "started_s": 0.0}
    return ExecutionRecord(component=component, outputs={key: [artifact]}, **facts)  # type: ignore[arg-type]


def test_champion_of_is_the_model_of_the_resolver_with_its_value_on_this_span() -> None:
    config = load_config("stream")
    (plan,) = config.plans
    resolver = _execution("last_blessed", "model", {"content_sha256": "f00"})
    evaluator = _execution("QuantizedEvaluator", "evaluation", {"last_blessed_accuracy": 0.75, "integer_accuracy": 0.5})
    assert champion_of([resolver, evaluator], config, plan) == Champion(content_sha256="f00", value=0.75)
    assert champion_of([evaluator], config, plan) is None
    assert champion_of([resolver], config, plan) is None


def test_config_raises_when_champion_floor_has_no_champion_to_look_at() -> None:
    config = load_config("digits")  # whose gates ask for no last blessed model
    floor = RetrainingPolicy(champion_floor=0.9)
    with pytest.raises(ValueError, match="add 'last_blessed' to also_compared"):
        dataclasses.replace(config, retraining=floor)
    dataclasses.replace(config, retraining=floor, also_compared=("last_blessed",))


def test_config_raises_when_champion_floor_is_of_a_metric_of_which_less_is_better() -> None:
    config = dataclasses.replace(
        load_config("digits"), metrics={"error": "MeanAbsoluteError"}, gates=Gates.of("error <= 1")
    )
    with pytest.raises(ValueError, match="champion_floor, but less is better of the first metric, error"):
        dataclasses.replace(config, retraining=RetrainingPolicy(champion_floor=0.9), also_compared=("last_blessed",))


def test_withdrawn_models_are_those_that_were_rolled_back_from_until_they_are_pushed_again(
    destination: PushDestination, tmp_path: Path
) -> None:
    first, second, _ = (move.version for move in destination.history())
    assert withdrawn_models(destination) == set()
    destination.rollback(second)
    assert withdrawn_models(destination) == {_SHA256["c"]}
    destination.rollback(first)
    assert withdrawn_models(destination) == {_SHA256["b"], _SHA256["c"]}
    _push(destination, tmp_path, "c", run="a later one")
    assert withdrawn_models(destination) == {_SHA256["b"]}
    assert withdrawn_models(PushDestination(str(tmp_path / "nowhere"))) == set()


def test_model_is_not_withdrawn_while_another_version_of_it_is_in_use(
    destination: PushDestination, tmp_path: Path
) -> None:
    (tmp_path / "c" / "io_contract.json").write_text("{}")
    third, other = destination.latest(), _push(destination, tmp_path, "c", run="with a contract")
    assert other != third
    destination.rollback(third)
    assert withdrawn_models(destination) == set()
    _push(destination, tmp_path, "a", run="again")
    _push(destination, tmp_path, "c", run="with a contract, later")
    destination.rollback(third)
    assert withdrawn_models(destination) == {_SHA256["a"]}
    destination.rollback(_version_of(destination, "b"))
    assert withdrawn_models(destination) == {_SHA256["a"], _SHA256["c"]}


def _version_of(destination: PushDestination, name: str) -> str:
    versions = {move.version for move in destination.history()}
    manifests = {version: destination.manifest(version) for version in versions}
    return next(v for v, found in manifests.items() if found and found.facts["content_sha256"] == _SHA256[name])


def test_last_blessed_model_is_not_one_that_was_rolled_back_from(destination: PushDestination) -> None:
    models, blessings = [], []
    for number, sha256 in enumerate(_SHA256.values(), 1):
        model, blessing = standard_artifacts.Model(), standard_artifacts.ModelBlessing()
        model.id, blessing.id = number, 10 + number
        model.set_string_custom_property("content_sha256", sha256)
        model.set_int_custom_property("examples_span", 10 * number)
        blessing.set_string_custom_property(ORIGIN_KEY, "ours")
        blessing.set_int_custom_property("blessed", 1)
        blessing.set_int_custom_property("current_model_id", number)
        models.append(model)
        blessings.append(blessing)

    def found(not_of_span: int | None = None) -> list[int]:
        strategy = LastBlessedModelStrategy("ours", destination.uri, not_of_span)
        given = {"model": models, "model_blessing": blessings}
        return [model.id for model in strategy.resolve_artifacts(None, given)["model"]]

    assert found() == [3]
    assert found(not_of_span=30) == [2]  # what a run on that span blessed before it was killed
    # The run on span 40 rolls back and is killed; repeated, it has the same champion, and rolls back no further.
    second = destination.history()[1].version
    champion = Champion(content_sha256=_SHA256["c"], value=0.5)
    assert roll_back_below(0.9, champion, destination.uri, span=40).startswith(f"rolled back to {second}")
    assert found(not_of_span=40) == [3]
    assert roll_back_below(0.9, champion, destination.uri, span=40) == ""
    assert destination.latest() == second
    assert found() == found(not_of_span=50) == [2]  # for others it is withdrawn
