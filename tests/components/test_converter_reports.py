"""What TFLiteIntConverter writes beside the model: where accuracy went, its audit, its sample, its cache."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tfx import types
from tfx.types import channel_utils, standard_artifacts

from components import converted_model, drift_statistics, example_files, tflite_int_converter
from components.quantization.interpreter import IntegerModel
from components.tflite_int_converter import TFLiteIntConverter

from conftest_components import Artifacts, new_models

pytestmark = pytest.mark.long
_MODEL = channel_utils.as_channel([standard_artifacts.Model()])

Convert = Callable[..., types.Artifact]


@pytest.fixture
def convert(channel: Any, standard: Artifacts, trained: Artifacts, tmp_path: Path) -> Convert:
    """Runs the executor on a trained model, with its float parent."""

    def run(
        source: str | list[types.Artifact] = "model", name: str = "tflite_model", **arguments: Any
    ) -> types.Artifact:
        inputs = {
            "model": trained[source] if isinstance(source, str) else source,
            "float_model": trained["float_model"],
            "examples": standard["transformed_examples"],
            "transform_graph": standard["transform_graph"],
            "schema": standard["schema"],
            "statistics": standard["statistics"],
        }
        component = TFLiteIntConverter(
            model=_MODEL,
            float_model=_MODEL,
            examples=channel("transformed_examples"),
            transform_graph=channel("transform_graph"),
            schema=channel("schema"),
            statistics=channel("statistics"),
            **arguments,
        )
        outputs = new_models(tmp_path / name, "tflite_model")
        tflite_int_converter.Executor().Do(inputs, outputs, component.exec_properties)
        return outputs["tflite_model"][0]

    return run


def _file(artifact: types.Artifact, name: str) -> Path:
    return Path(artifact.uri) / name


def _json(artifact: types.Artifact, name: str) -> Any:
    return json.loads(_file(artifact, name).read_text())


def _tflite(artifact: types.Artifact) -> bytes:
    return _file(artifact, "Format-Serving/tflite").read_bytes()


def _examples(standard: Artifacts, split: str, count: int) -> dict[str, np.ndarray]:
    records = example_files.sample_split(standard["transformed_examples"], split, count, seed=1)
    spec = {"image": tf.io.FixedLenFeature([8, 8, 1], tf.float32), "label": tf.io.FixedLenFeature([1], tf.int64)}
    return {name: value.numpy() for name, value in tf.io.parse_example(records, spec).items()}


def test_attribution_has_the_metric_of_each_step_on_the_golden_split(
    convert: Convert, standard: Artifacts, trained: Artifacts
) -> None:
    artifact = convert(label_key="label", attribution_examples=60)
    found = _json(artifact, "attribution.json")
    examples = _examples(standard, "eval", 60)
    labels = examples["label"].ravel()
    scores = {
        step: tf_keras.models.load_model(Path(trained[key][0].uri) / "Format-Serving")(examples["image"]).numpy()
        for step, key in (("float", "float_model"), ("fake-quant", "model"))
    }
    scores["integer default"] = IntegerModel(_tflite(artifact)).predict(examples)["probabilities"]
    steps = {step["name"]: step for step in found["steps"]}
    assert list(steps) == ["float", "fake-quant", "integer default", "integer optimized"]
    for step, values in scores.items():
        assert steps[step]["metrics"]["accuracy"] == pytest.approx((values.argmax(1) == labels).mean())
        property_ = f"attribution_accuracy_{step.removesuffix(' default').replace('-', '_')}"
        assert artifact.get_float_custom_property(property_) == steps[step]["metrics"]["accuracy"]
    assert steps["integer default"]["kernels"].startswith("default kernels (XNNPACK runs ")
    assert artifact.get_string_custom_property("attribution_kernels") == steps["integer default"]["kernels"]
    assert artifact.get_string_custom_property("attribution_compared_with") == "fake-quant"
    assert artifact.get_int_custom_property("attribution_examples") == found["examples"] == 60
    assert artifact.get_float_custom_property("attribution_output_sqnr_db") > 30
    assert artifact.get_float_custom_property("attribution_output_lsb") == found["layers"][-1]["max_lsb"] < 10
    assert artifact.get_string_custom_property("attribution_first_diverging") == (found["first_diverging"] or "")
    assert [pair["examples"] for pair in found["kernels"]["pairs"]] == [60, 32, 32]
    assert "fake-quant to integer default" in _file(artifact, "attribution.txt").read_text()
    assert _file(artifact, "attribution.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("rung", "cause"), [("qat", ", and fine-tuning"), ("selective", ", and fine-tuning"), ("ptq", "")]
)
def test_attribution_blames_fine_tuning_only_when_there_was_any(
    convert: Convert, trained: Artifacts, rung: str, cause: str
) -> None:
    model = standard_artifacts.Model()
    model.copy_from(trained["model"][0])
    model.set_string_custom_property("kind", rung)
    found = _json(convert([model], label_key="label", attribution_examples=20), "attribution.json")
    causes = {one["cause"] for one in found["changes"] if (one["start"], one["end"]) == ("float", "fake-quant")}
    assert causes == {f"quantization as such{cause}"}


def test_attribution_of_a_float_model_compares_the_integers_with_itself(convert: Convert) -> None:
    artifact = convert("float_model", label_key="label", attribution_examples=40)
    assert [step["name"] for step in _json(artifact, "attribution.json")["steps"]][:2] == ["float", "integer default"]
    assert artifact.get_string_custom_property("attribution_compared_with") == "float"
    assert artifact.get_float_custom_property("attribution_accuracy_integer") > 0.5
    assert not artifact.has_custom_property("attribution_accuracy_fake_quant")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "without the metrics of the task: no label_key was given"),
        pytest.param(
            {"label_key": "digit"}, "label_key 'digit' is none of the features image, label", marks=pytest.mark.long
        ),
        pytest.param({"label_key": "image"}, "label 'image' does not fit them: ", marks=pytest.mark.long),
    ],
)
def test_attribution_says_why_there_are_no_metrics(
    convert: Convert, caplog: pytest.LogCaptureFixture, arguments: dict[str, str], message: str
) -> None:
    with caplog.at_level(logging.INFO):
        artifact = convert(attribution_examples=20, **arguments)
    assert message in caplog.text
    assert not any(step["metrics"] for step in _json(artifact, "attribution.json")["steps"])
    assert artifact.get_float_custom_property("attribution_output_sqnr_db") > 30


def test_nothing_is_measured_when_no_examples_shall_be(convert: Convert) -> None:
    artifact = convert(attribution_examples=0)
    names = {path.name for path in Path(artifact.uri).iterdir()}
    assert names == {"Format-Serving", "audit.json", "conversion.json", "facts.json", "statistics"}
    assert not [name for name in _json(artifact, "facts.json") if name.startswith("attribution")]


def test_a_retry_takes_the_conversion_from_the_cache_when_what_comes_after_it_failed(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"attribution_examples": 0, "cache_dir": str(tmp_path / "cache")}

    def broken(*_: Any) -> None:
        raise RuntimeError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(converted_model, "deploy", broken)
        with pytest.raises(RuntimeError, match="disk full"):
            convert(**arguments)
    retried, anew = convert(**arguments), convert(name="anew", attribution_examples=0)
    assert [_json(one, "conversion.json")["cached"] for one in (retried, anew)] == [True, False]
    assert "convert" not in _json(retried, "conversion.json")["seconds"]
    assert _tflite(retried) == _tflite(anew)


@pytest.mark.parametrize(
    ("io_dtype", "floats"),
    [
        pytest.param({"image": "uint8"}, [], marks=pytest.mark.long),
        ({"image": "float32"}, ["image"]),
        pytest.param("float32", ["image", "probabilities"], marks=pytest.mark.long),
    ],
)
def test_edges_have_the_types_that_were_asked_for_by_name(
    convert: Convert, standard: Artifacts, io_dtype: Any, floats: list[str]
) -> None:
    artifact = convert(io_dtype=io_dtype, attribution_examples=20, label_key="label")
    contract = _json(artifact, "Format-Serving/io_contract.json")
    dtypes = {edge["name"]: edge["dtype"] for edge in (*contract["inputs"], *contract["outputs"])}
    asked = io_dtype if isinstance(io_dtype, dict) else dict.fromkeys(dtypes, io_dtype)
    assert dtypes == {"image": "int8", "probabilities": "int8", **asked}
    audit = _json(artifact, "audit.json")
    assert (audit["integer_only"], audit["ready"]) == (True, True)
    assert artifact.get_int_custom_property("integer_only") == 1
    assert artifact.get_string_custom_property("io_dtype") == ", ".join(sorted(set(dtypes.values())))
    assert [note["tensor"] for note in audit["notes"] if note["rule"] == "float-edge"] == floats
    images = _examples(standard, "eval", 30)
    plain = convert(name="plain", attribution_examples=0)
    np.testing.assert_array_equal(
        IntegerModel(_tflite(artifact)).predict(images)["probabilities"],
        IntegerModel(_tflite(plain)).predict(images)["probabilities"],
    )


def test_converter_raises_and_writes_nothing_when_a_type_is_for_no_edge(convert: Convert, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got types for picture, expected inputs or outputs of the model: image, prob"):
        convert(io_dtype={"picture": "uint8"})
    assert not (tmp_path / "tflite_model").exists()


def test_a_calibrated_model_says_how_its_sample_stands_for_the_split(convert: Convert, standard: Artifacts) -> None:
    artifact = convert("float_model", representative_examples=5, seed=3, attribution_examples=0)
    found = _json(artifact, "representative.json")
    sample = example_files.sample_split(standard["transformed_examples"], "train", 5, seed=3)
    whole = list(example_files.read_split(standard["transformed_examples"], "train"))
    spec = {"image": tf.io.FixedLenFeature([8, 8, 1], tf.float32)}
    values = {
        name: tf.io.parse_example(records, spec)["image"].numpy()
        for name, records in (("sample", sample), ("split", whole))
    }
    assert (found["split"], found["seed"], found["sample_examples"]) == ("train", 3, 5)
    assert found["split_examples"] == len(whole)
    for name, images in values.items():
        assert found["inputs"]["image"][name]["max"] == images.max()
        expected = np.percentile(images.astype(float), 99.0)
        assert found["inputs"]["image"][name]["percentiles"]["99"] == pytest.approx(expected)
    beyond = np.mean(values["split"] > values["sample"].max())
    assert found["inputs"]["image"]["split_beyond_sample"] == pytest.approx(beyond)
    (calibrated,) = _json(artifact, "conversion.json")["calibration_sets"]
    assert (calibrated["by"], calibrated["split"], calibrated["examples"], calibrated["seed"]) == (
        "TFLiteIntConverter",
        "train",
        5,
        3,
    )
    hashes = [hashlib.sha256(_ordered(record)).digest() for record in sample]
    assert calibrated["sha256"] == f"{sum(int.from_bytes(one, 'big') for one in hashes) % 2**256:064x}"
    assert json.loads(artifact.get_string_custom_property("calibration_sets")) == [calibrated]
    trained = convert(name="trained", attribution_examples=0)
    assert not _file(trained, "representative.json").exists()
    assert _json(trained, "conversion.json")["calibration_sets"] == []
    assert not trained.has_custom_property("calibration_sets")


def test_a_model_keeps_statistics_of_its_examples_inputs_and_calibration(convert: Convert, standard: Artifacts) -> None:
    kept = drift_statistics.of_model(convert("float_model", representative_examples=5, attribution_examples=0))
    assert sorted(kept) == ["calibration", "examples", "inputs"]
    made = Path(standard["statistics"][0].uri) / "Split-train" / "FeatureStats.pb"
    assert kept["examples"] == drift_statistics.Statistics.FromString(made.read_bytes())
    whole = list(example_files.read_split(standard["transformed_examples"], "train"))
    assert [kept[name].datasets[0].num_examples for name in ("inputs", "calibration")] == [len(whole), 5]
    images = _examples(standard, "train", len(whole))["image"]
    (mean,) = [one for one in kept["inputs"].datasets[0].features if one.path.step == ["image/mean"]]
    assert mean.num_stats.max == pytest.approx(images.mean(axis=(1, 2, 3)).max())
    trained = drift_statistics.of_model(convert(name="trained", attribution_examples=0))
    assert sorted(trained) == ["examples", "inputs"]


def _ordered(record: bytes) -> bytes:
    return tf.train.Example.FromString(record).SerializeToString(deterministic=True)
