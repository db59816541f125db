import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.evaluation.gates import Gates
from components.example_files import read_split
from components.quantization import toolchain
from components.quantization.calibration_set import sets_from_json
from components.quantization.file_hash import sha256
from components.quantization.origin_facts import ORIGIN_FACTS
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.records import fingerprint
from components.quantize_trainer import QuantizeTrainer
from components.target_gates.planned_target import PlannedTarget
from components.transform_hash import transform_sha256

from conftest_components import Artifacts, train

pytestmark = pytest.mark.slow


def _files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_constructor_puts_everything_that_decides_the_result_into_the_cache_key(
    trainer: Callable[..., QuantizeTrainer],
) -> None:
    properties = trainer().exec_properties
    assert json.loads(properties["scheme"])["name"] == "full_int8"
    assert set(json.loads(properties["toolchain"])) >= {"tensorflow", "tf-keras", "tfx-qat"}
    assert len(properties["module_sha256"]) == 64
    assert {type(value) for value in properties.values()} <= {str, int, float}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": "no.such.module"}, "module 'no.such.module' cannot be imported"),
        ({"module": "pipelines.inputs"}, "does not define build_model, input_fn"),
        ({"scheme": "int7"}, "unknown scheme 'int7'"),
        ({"scheme": "float16", "profile": "cpu"}, "scheme 'float16' is not trained"),
        ({"scheme": "int16x8"}, "target 'edge_tpu' cannot run scheme 'int16x8'"),
        ({"training": TrainingParameters(strategy="auto")}, "stops at the first model that keeps the gates"),
        (
            {"training": TrainingParameters(strategy="auto"), "gates": Gates.of("model_bytes <= 1", "a[label=3] >= 1")},
            "give at least one on a metric over all examples",
        ),
    ],
)
def test_constructor_raises_when_an_argument_is_wrong(
    trainer: Callable[..., QuantizeTrainer], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**changes)


def test_executor_writes_both_models_with_their_facts(trained: Artifacts) -> None:
    for key in ("model", "float_model"):
        directory = Path(trained[key][0].uri)
        assert {"facts.json", "Format-Serving/saved_model.pb"} <= _files(directory)
        facts = json.loads((directory / "facts.json").read_text())
        assert facts["eval_accuracy"] == trained[key][0].get_float_custom_property("eval_accuracy")
        assert facts["tensorflow_version"] == tf.__version__
    parent = trained["float_model"][0].get_string_custom_property("sha256")
    assert trained["model"][0].get_string_custom_property("parent_sha256") == parent
    assert trained["model"][0].get_string_custom_property("float_model_uri") == trained["float_model"][0].uri
    assert list(Path(trained["model_run"][0].uri).rglob("events.out.tfevents.*"))
    plan = (Path(trained["model_run"][0].uri) / "plan.txt").read_text()
    assert "trained as integers: 100.0% of the parameters" in plan
    assert trained["model"][0].get_float_custom_property("mac_coverage") == 1.0


def test_executor_records_what_the_models_were_made_of(trained: Artifacts, standard: Artifacts) -> None:
    origins = [
        {name: trained[key][0].get_string_custom_property(name) for name in ORIGIN_FACTS if name.endswith("sha256")}
        for key in ("float_model", "model")
    ]
    assert origins[0] == origins[1]
    expected = {
        "task_sha256": toolchain.module_sha256("pipelines.tasks.digits"),
        "schema_sha256": sha256(Path(standard["schema"][0].uri)),
        "transform_sha256": transform_sha256(Path(standard["transform_graph"][0].uri)),
        "training_examples_sha256": fingerprint(read_split(standard["transformed_examples"], "train")),
        "evaluation_examples_sha256": fingerprint(read_split(standard["transformed_examples"], "eval")),
    }
    assert {name: value for name, value in origins[0].items() if value} == expected
    assert trained["model"][0].get_int_custom_property("seed") == TrainingParameters().seed


@pytest.mark.parametrize("key", ["model", "float_model"])
def test_signatures_agree_on_raw_examples_and_on_dense_features(trained: Artifacts, key: str) -> None:
    loaded = tf.saved_model.load(str(Path(trained[key][0].uri) / "Format-Serving"))
    pixels = np.arange(64, dtype=np.float32) % 17
    example = tf.train.Example()
    example.features.feature["image"].float_list.value.extend(pixels)
    # No label: there is none when the model serves.
    serialized = tf.constant([example.SerializeToString()])
    by_example = loaded.signatures["serving_default"](examples=serialized)["probabilities"]
    dense = tf.constant(pixels.reshape(1, 8, 8, 1) / 16)
    by_features = loaded.signatures["serving_dense"](image=dense)["probabilities"]
    np.testing.assert_array_equal(by_example, by_features)
    example.features.feature["label"].int64_list.value.append(4)
    features = loaded.signatures["transform_features"](examples=tf.constant([example.SerializeToString()]))
    np.testing.assert_array_equal(features["image"], dense)
    assert features["label"].numpy().tolist() == [[4]]


def test_executor_leaves_one_good_output_when_it_runs_again(
    trainer: Callable[..., QuantizeTrainer], standard: Artifacts, tmp_path: Path
) -> None:
    stale = tmp_path / "model" / "Format-Serving"
    stale.mkdir(parents=True)
    (stale / "left_by_an_attempt_before").touch()
    outputs = train(trainer(), standard, tmp_path)
    files = _files(Path(outputs["model"][0].uri))
    assert "Format-Serving/left_by_an_attempt_before" not in files
    assert not [name for name in files if ".partial" in name]


@pytest.mark.extended
def test_executor_takes_the_base_model_and_hyperparameters_of_other_components(
    trainer: Callable[..., QuantizeTrainer], standard: Artifacts, trained: Artifacts, tmp_path: Path
) -> None:
    tuned = standard_artifacts.HyperParameters()
    tuned.uri = str(tmp_path / "tuned")
    Path(tuned.uri).mkdir()
    values = {"values": {"qat_epochs": 2, "qat_learning_rate": 1e-4, "depth": 3}}  # as keras_tuner writes them
    (Path(tuned.uri) / "best_hyperparameters.txt").write_text(json.dumps(values))
    base = {"base_model": trained["float_model"], "hyperparameters": [tuned]}
    outputs = train(trainer(), standard, tmp_path, **base)
    training = json.loads(outputs["model"][0].get_string_custom_property("training"))
    assert (training["qat_epochs"], training["qat_learning_rate"]) == (2, 1e-4)
    accuracy = "eval_accuracy"
    parent, taken = trained["float_model"][0], outputs["float_model"][0]
    assert taken.get_float_custom_property(accuracy) == parent.get_float_custom_property(accuracy)
    assert {path.name for path in Path(outputs["model_run"][0].uri).iterdir()} == {"qat", "plan.txt"}


@pytest.mark.extended
def test_executor_climbs_the_ladder_from_the_weights_of_an_earlier_model_and_keeps_receipts(
    trainer: Callable[..., QuantizeTrainer], standard: Artifacts, trained: Artifacts, tmp_path: Path
) -> None:
    training = TrainingParameters(strategy="auto", float_epochs=1, float_learning_rate=1e-4)
    component = trainer(training=training, gates=Gates.of("accuracy drop <= 0.05", "accuracy[label=*] >= 1.5"))
    outputs = train(component, standard, tmp_path, warm_start_model=trained["model"])
    model, parent = outputs["model"][0], outputs["float_model"][0]
    assert model.get_string_custom_property("kind") == "ptq"
    receipts = json.loads(model.get_string_custom_property("receipts"))
    assert [(receipt["rung"], receipt["accepted"]) for receipt in receipts] == [("float", False), ("ptq", True)]
    (calibrated,) = sets_from_json(model.get_string_custom_property("calibration_sets"))
    train_split = list(read_split(standard["transformed_examples"], "train"))
    assert (calibrated.by, calibrated.split, calibrated.examples, calibrated.seed) == (
        "QuantizeTrainer",
        "train",
        300,
        1,
    )
    assert calibrated.artifact == standard["transformed_examples"][0].id
    assert len(train_split) > 300
    assert not parent.has_custom_property("calibration_sets")
    assert receipts[0]["metrics"]["accuracy"] == parent.get_float_custom_property("eval_accuracy")
    assert receipts[1]["reasons"][0].startswith("holds: accuracy drop <= 0.05")
    assert parent.get_int_custom_property("warm_start_layers") == 6
    earlier = trained["float_model"][0].get_float_custom_property("eval_accuracy")
    assert parent.get_float_custom_property("eval_accuracy") > earlier - 0.02  # one epoch alone reaches less
    files = {path.name for path in Path(outputs["model_run"][0].uri).iterdir()}
    assert files == {"float", "plan.txt", "receipts.json", "warm_start.json"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_key": "digit"}, "label_key or weight_key 'digit' is no raw feature; there are image, label"),
        ({"label_key": {"a": "label", "b": "tag"}}, "label_key or weight_key 'tag' is no raw feature"),
        ({"weight_key": "weight"}, "label_key or weight_key 'weight' is no raw feature"),
        ({"train_split": "training"}, "examples have no split 'training', only eval, train"),
    ],
)
def test_executor_raises_and_writes_no_model_when_an_argument_does_not_fit_the_data(
    trainer: Callable[..., QuantizeTrainer],
    standard: Artifacts,
    tmp_path: Path,
    changes: dict[str, str],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        train(trainer(**changes), standard, tmp_path)
    assert not list(tmp_path.iterdir())


def test_executor_raises_before_it_trains_when_the_model_can_never_be_converted(
    trainer: Callable[..., QuantizeTrainer], standard: Artifacts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    component = trainer(module="unconvertible_task")
    message = "cannot be converted with scheme 'full_int8' for target 'edge_tpu', tried before anything was trained: "
    with caplog.at_level("INFO"), pytest.raises(ValueError, match=message):
        train(component, standard, tmp_path)
    assert not [record for record in caplog.records if "loss" in record.getMessage()]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_executor_raises_before_it_trains_when_a_target_cannot_keep_its_gates(
    trainer: Callable[..., QuantizeTrainer], standard: Artifacts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = PlannedTarget(target="cpu", gates=Gates.of("model_bytes <= 100", "accuracy >= 0.9"))
    component = trainer(gates=Gates.of("macs_on_target >= 0.95"), also_for=[small])
    message = "cannot keep the gates of target 'cpu', tried before anything was trained: fails: model_bytes <= 100"
    with caplog.at_level("INFO"), pytest.raises(ValueError, match=message) as raised:
        train(component, standard, tmp_path)
    assert "edge_tpu" not in str(raised.value)
    assert not [record for record in caplog.records if "loss" in record.getMessage()]
