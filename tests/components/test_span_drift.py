"""SpanDrift and DriftGate on digits, against a last blessed model that halves its pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tf_keras
from sklearn.datasets import load_digits
from tfx import types
from tfx.types import channel_utils, standard_artifacts

from components import drift_gate, drift_statistics, span_drift
from components.drift_gate import DriftGate
from components.drift_statistics import CALIBRATION, EXAMPLES, INPUTS
from components.evaluation.drift import Drift
from components.evaluation.gates import Gates
from components.evaluation.input_columns import InputColumns
from components.quantization import convert
from components.quantized_evaluator import QuantizedEvaluator
from components.retraining.spans import DriftError
from components.span_drift import SpanDrift, read_drift

_PIXELS = load_digits().images.reshape(-1, 64).astype("float32")
_GATES = Gates.of("accuracy >= 0.9", "drift <= 0.1", "drift of image <= 0.05")


class _Preprocessing(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, {"image": tf.io.FixedLenFeature([64], tf.float32)})
        return {"pixels": parsed["image"] / 2}


def _columns(pixels: npt.NDArray[np.float32], name: str) -> Any:
    columns = InputColumns([name])
    columns.add({name: pixels})
    return drift_statistics.of_columns(columns.columns)


@pytest.fixture(scope="module")
def blessed(tmp_path_factory: pytest.TempPathFactory) -> types.Artifact:
    """A model with what TFLiteIntConverter keeps of its examples, and its float parent's preprocessing."""
    directory = tmp_path_factory.mktemp("blessed")
    preprocessing = _Preprocessing()
    signatures = {"transform_features": preprocessing.transform_features}
    tf.saved_model.save(preprocessing, str(directory / "float" / "Format-Serving"), signatures=signatures)
    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.InputLayer((64,), name="pixels"), layers.Dense(2, name="scores")])
    artifact = standard_artifacts.Model()
    artifact.uri = str(directory / "integer")
    artifact.set_string_custom_property("float_model_uri", str(directory / "float"))
    (directory / "integer" / "Format-Serving").mkdir(parents=True)
    tflite = convert(model, representative_dataset=[_PIXELS[:50] / 2])
    (directory / "integer" / "Format-Serving" / "tflite").write_bytes(tflite)
    kept = {
        EXAMPLES: drift_statistics.of_columns({"image": _PIXELS}),
        INPUTS: _columns(_PIXELS / 2, "pixels"),
        CALIBRATION: _columns(_PIXELS[:50] / 2, "pixels"),
    }
    (directory / "integer" / drift_statistics.DIRECTORY).mkdir()
    for name, content in drift_statistics.to_files(kept).items():
        (directory / "integer" / drift_statistics.DIRECTORY / name).write_bytes(content)
    return artifact


def _component(gates: dict[str, Gates]) -> SpanDrift:
    return SpanDrift(
        examples=channel_utils.as_channel([standard_artifacts.Examples()]),
        statistics=channel_utils.as_channel([standard_artifacts.ExampleStatistics()]),
        baseline_model=channel_utils.as_channel([standard_artifacts.Model()]),
        gates=gates,
    )


def _measured(
    directory: Path,
    pixels: npt.NDArray[np.float32],
    baseline: list[types.Artifact],
    feature: str = "image",
    described: str = "image",
    **gates: Gates,
) -> types.Artifact:
    """What SpanDrift publishes of examples with those pixels."""
    examples, statistics = standard_artifacts.Examples(), standard_artifacts.ExampleStatistics()
    output = standard_artifacts.ExampleAnomalies()
    for name, artifact in (("examples", examples), ("statistics", statistics), ("drift", output)):
        artifact.uri = str(directory / name)
    examples.split_names = statistics.split_names = '["train"]'
    (directory / "examples" / "Split-train").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(directory / "examples" / "Split-train" / "data.tfrecord")) as writer:
        for row in pixels:
            example = tf.train.Example()
            example.features.feature[feature].float_list.value.extend(row)
            writer.write(example.SerializeToString())
    (directory / "statistics" / "Split-train").mkdir(parents=True)
    (directory / "statistics" / "Split-train" / "FeatureStats.pb").write_bytes(
        drift_statistics.of_columns({described: pixels}).SerializeToString()
    )
    inputs = {"examples": [examples], "statistics": [statistics], "baseline_model": baseline}
    properties = _component(gates or {"edge_tpu": _GATES}).exec_properties
    span_drift.Executor().Do(inputs, {"drift": [output]}, properties)
    return output


def _gate(artifact: types.Artifact) -> None:
    drift_gate.Executor().Do({"drift": [artifact]}, {}, {})


def _by_feature(artifact: types.Artifact) -> dict[str, float]:
    return {one.feature: one.distance for one in read_drift(artifact).distances}


def test_digits_in_another_order_keep_the_gates(tmp_path: Path, blessed: types.Artifact) -> None:
    found = _measured(tmp_path, np.random.default_rng(0).permutation(_PIXELS), [blessed])
    distances = _by_feature(found)
    of_inputs = [f"inputs/pixels{of}" for of in ("", "/mean", "/std")]
    of_calibration = [f"calibration/pixels{of}" for of in ("", "/mean", "/std")]
    assert list(distances) == ["image", *of_inputs, *of_calibration, "range/pixels"]
    assert distances["range/pixels"] == 0
    assert max(distances[name] for name in ("image", *of_inputs)) < 0.005
    assert distances["calibration/pixels/mean"] > 0.01  # 50 examples are not all of them
    assert found.get_float_custom_property("drift") == max(distances[name] for name in ("image", *of_inputs))
    assert found.get_float_custom_property("drift_image") == distances["image"]
    assert found.get_string_custom_property("reason_codes") == "holds"
    _gate(found)


def test_inverted_digits_are_published_with_their_reasons_and_stop_the_run(
    tmp_path: Path, blessed: types.Artifact
) -> None:
    found = _measured(tmp_path, 16 - _PIXELS, [blessed])
    assert _by_feature(found)["inputs/pixels/mean"] > 0.99
    assert found.get_string_custom_property("reason_codes") == "drift"
    reasons = json.loads(found.get_string_custom_property("reasons"))
    assert [reason.partition(" (")[0] for reason in reasons] == ["fails: drift <= 0.1", "fails: drift of image <= 0.05"]
    with pytest.raises(
        DriftError, match=r"the examples have drifted: fails: drift <= 0.1 .*; fails: drift of image"
    ) as caught:
        _gate(found)
    assert caught.value.drift == found.get_float_custom_property("drift")


def test_inputs_are_those_of_the_last_blessed_models_own_preprocessing(tmp_path: Path, blessed: types.Artifact) -> None:
    distances = _by_feature(_measured(tmp_path, _PIXELS * 3, [blessed]))
    # Halving shifts no histogram, and a Transform that scaled each span by its maximum would have hidden it here.
    assert distances["inputs/pixels"] == pytest.approx(distances["image"], abs=0.02)
    assert distances["image"] > 0.1


def test_values_beyond_the_range_of_the_last_blessed_model_are_counted_and_gated(
    tmp_path: Path, blessed: types.Artifact
) -> None:
    gates = Gates.of("drift of range/pixels <= 0.01")
    found = _measured(tmp_path, _PIXELS * 2, [blessed], edge_tpu=gates)
    # Calibrated with values up to 8, an int8 input clips those that doubled exceed it by more than half a step.
    halves = (_PIXELS * 2 / 2).astype(np.float64)
    expected = float(np.mean(halves > 8 + 8 / 255 / 2))
    assert expected > 0.1
    assert _by_feature(found)["range/pixels"] == pytest.approx(expected, abs=1e-9)
    of_training = [one for name, one in _by_feature(found).items() if not name.startswith(("range/", "calibration/"))]
    assert found.get_float_custom_property("drift") == max(of_training)
    with pytest.raises(DriftError, match=r"fails: drift of range/pixels <= 0.01 \(drift of range/pixels is 0\.\d+\)"):
        _gate(found)


@pytest.mark.parametrize("kind", ["none", "earlier version"])
def test_first_span_passes_with_a_reason_of_its_own(tmp_path: Path, kind: str) -> None:
    earlier = standard_artifacts.Model()
    earlier.uri = str(tmp_path / "earlier")
    found = _measured(tmp_path, _PIXELS[:20], [] if kind == "none" else [earlier])
    assert found.get_string_custom_property("reason_codes") == "no_baseline"
    assert found.get_string_custom_property("no_drift_baseline").startswith(
        "there is no last blessed model" if kind == "none" else "the last blessed model was made by an earlier version"
    )
    assert not found.has_custom_property("drift")
    _gate(found)


def test_examples_that_the_last_blessed_model_cannot_take_are_refused(tmp_path: Path, blessed: types.Artifact) -> None:
    found = _measured(tmp_path, _PIXELS[:100], [blessed], feature="picture")
    assert found.get_string_custom_property("reason_codes") == "holds, not_measured"  # of image statistics are there
    with pytest.raises(DriftError, match="the preprocessing of the last blessed model cannot be run on these examples"):
        _gate(found)


def test_examples_that_lack_a_feature_of_the_training_are_refused(tmp_path: Path, blessed: types.Artifact) -> None:
    found = _measured(tmp_path, _PIXELS[:100], [blessed], feature="picture", described="picture")
    assert found.get_string_custom_property("reason_codes") == "not_measured"
    with pytest.raises(DriftError, match="drift is not measured; the examples have no image any more"):
        _gate(found)


def test_run_goes_on_while_one_of_several_targets_takes_the_examples(tmp_path: Path, blessed: types.Artifact) -> None:
    lenient, strict = Gates.of("drift of image <= 0.9"), Gates.of("drift <= 0.1")
    for name, gates in (("some", {"cpu": lenient, "edge_tpu": strict}), ("none", {"cpu": strict, "edge_tpu": strict})):
        found = _measured(tmp_path / name, _PIXELS * 3, [blessed], **gates)
        if name == "some":
            _gate(found)
        else:
            with pytest.raises(DriftError):
                _gate(found)


def test_evaluator_refuses_gates_on_drift_when_nothing_measures_it() -> None:
    model = channel_utils.as_channel([standard_artifacts.Model()])
    with pytest.raises(ValueError, match="gates on drift, but no drift; connect SpanDrift's output"):
        QuantizedEvaluator(
            examples=channel_utils.as_channel([standard_artifacts.Examples()]),
            model=model,
            baseline_model=model,
            label_key="label",
            metrics={"accuracy": "SparseCategoricalAccuracy"},
            gates=_GATES,
        )


def test_drift_gate_gives_nothing_that_a_cache_could_lose() -> None:
    gate = DriftGate(drift=channel_utils.as_channel([standard_artifacts.ExampleAnomalies()]))
    assert not gate.outputs
    assert Drift.from_json(Drift().to_json()).facts() == {}
