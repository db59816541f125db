import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from evaluated_models import EvaluatedModel, example_columns, write_examples
from scipy.stats import binomtest
from tfx import types

from components import paired_predictions
from components.eval_config import eval_config
from components.evaluation.gates import Gates
from components.evaluation.measurements import FAKE_QUANT, FLOAT, INTEGER, LAST_BLESSED, Cell, Measurements
from components.evaluation.task import Task
from components.evaluation_pass import EvaluationPass
from components.evaluation_results import read_measurements
from components.paired_predictions import BATCH_SIZE
from components.quantization.interpreter import IntegerModel
from components.quantization.record_files import record_batches

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),  # TFMA's, of its own
]
_RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LABELS = {"kind": "kind", "length": "length", "tags": "tags"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    path: str
    measured: Measurements


def _run(
    task: Task, models: Mapping[str, types.Artifact], examples: types.Artifact, directory: Path, threads: int = 1
) -> Found:
    evaluation = EvaluationPass.of(
        eval_config(task, Gates.of("example_count >= 1" if "" in task.labels else "example_count of kind >= 1")),
        models,
        flipped_examples=3,
    )
    path = str(directory / "evaluation")
    with beam.Pipeline(options=PipelineOptions([_RUNNER])) as pipeline:
        evaluation.write(evaluation.read(pipeline, [examples], "eval"), 0.95, path, threads)
    return Found(path=path, measured=read_measurements(path, models, {}))


@pytest.fixture(scope="module", params=[1_000, pytest.param(10_000, marks=pytest.mark.long)])
def columns(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    return example_columns(request.param)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, types.Artifact]:
    directory = tmp_path_factory.mktemp("models")
    names = tuple(_LABELS)
    return {
        INTEGER: EvaluatedModel(names).save_tflite(directory / "integer"),
        FLOAT: EvaluatedModel(names).save(directory / "float"),
        FAKE_QUANT: EvaluatedModel(names, 0.05).save(directory / "fake_quant"),
        LAST_BLESSED: EvaluatedModel(names, 0.1).save_tflite(directory / "last_blessed"),
    }


@pytest.fixture(scope="module")
def found(
    models: dict[str, types.Artifact], columns: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Found:
    directory = tmp_path_factory.mktemp("several")
    task = Task(
        label_key=_LABELS,
        metrics={
            "kind/accuracy": "SparseCategoricalAccuracy",
            "kind/loss": "SparseCategoricalCrossentropy",
            "length/error": "MeanAbsoluteError",
            "length/rmse": "RootMeanSquaredError",
            "tags/auc": "AUC",
        },
        slices=[("country",), ("kind", "country")],
        label_kind={"kind": "classes", "tags": "labels"},
        weight_key="weight",
        models=tuple(models),
    )
    return _run(task, models, write_examples(columns, directory / "examples"), directory)


@pytest.fixture(scope="module")
def scores(models: dict[str, types.Artifact], columns: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The predictions of all models, one example at a time for the integer ones."""
    made = {}
    for name, artifact in models.items():
        serving = Path(artifact.uri) / "Format-Serving"
        if (serving / "tflite").exists():
            model = IntegerModel((serving / "tflite").read_bytes())
            rows = [model.predict({"x": row[None]}) for row in columns["x"]]
            made[name] = {output: np.concatenate([row[output] for row in rows]) for output in rows[0]}
        else:
            made[name] = _in_batches(tf.saved_model.load(str(serving)).signatures["serving_dense"], columns["x"])
    return made


def _in_batches(dense: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """The predictions of a float model, whose last bits depend on how many examples it is given at once."""
    rows = [np.arange(shard, len(x), 3) for shard in range(3)]  # of the files of `write_examples`
    batches = [of[start : start + BATCH_SIZE] for of in rows for start in range(0, len(of), BATCH_SIZE)]
    found = [dense(x=tf.constant(x[batch])) for batch in batches]
    back = np.argsort(np.concatenate(batches))
    return {name: np.concatenate([one[name].numpy() for one in found])[back] for name in found[0]}


def _slices(columns: dict[str, np.ndarray]) -> dict[Any, np.ndarray]:
    country, kind = columns["country"].astype(str), columns["kind"].astype(str)
    cuts: dict[Any, np.ndarray] = {(): np.ones(len(kind), bool)}
    for one in np.unique(country):
        cuts[(("country", one),)] = country == one
        for other in np.unique(kind):
            cuts[("country", one), ("kind", other)] = (country == one) & (kind == other)
    return cuts


def test_every_metric_of_every_model_output_and_slice_equals_numpy(
    found: Found, scores: dict[str, dict[str, np.ndarray]], columns: dict[str, np.ndarray]
) -> None:
    kind, length = columns["kind"], columns["length"]
    for cut, rows in _slices(columns).items():
        weights = columns["weight"][rows].astype(np.float64)
        for name in (INTEGER, FLOAT, FAKE_QUANT, LAST_BLESSED):
            of = scores[name]
            right = of["kind"][rows].argmax(1) == kind[rows]
            distance = np.abs(of["length"][rows, 0].astype(np.float64) - length[rows])
            by_output = {one: found.measured.metrics[Cell(model=name, output=one, slice=cut)] for one in _LABELS}
            assert by_output["kind"]["accuracy"] == pytest.approx(np.average(right, weights=weights), rel=1e-5)
            assert by_output["length"]["error"] == pytest.approx(np.average(distance, weights=weights), rel=1e-5)
            rmse = np.sqrt(np.average(distance**2, weights=weights))
            assert by_output["length"]["rmse"] == pytest.approx(rmse, rel=1e-5)
            assert by_output["kind"]["example_count"] == rows.sum() == found.measured.examples[cut]
            assert 0.5 < by_output["tags"]["auc"] <= 1


def _calibration_error(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """By the definition, bin by bin: https://arxiv.org/abs/1706.04599."""
    confidences, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    error = 0.0
    for number in range(15):
        within = (confidences >= number / 15) & ((confidences < (number + 1) / 15) | (number == 14))
        if within.any():
            gap = np.average(right[within], weights=weights[within]) - np.average(
                confidences[within], weights=weights[within]
            )
            error += weights[within].sum() / weights.sum() * abs(gap)
    return error


def test_paired_statistics_of_every_model_output_and_slice_equal_numpy_to_nine_digits(
    found: Found, scores: dict[str, dict[str, np.ndarray]], columns: dict[str, np.ndarray]
) -> None:
    assert len(found.measured.paired) == 3 * 3 * 13
    for cut, rows in _slices(columns).items():
        weights, labels = columns["weight"][rows].astype(np.float64), columns["kind"][rows]
        ours = scores[INTEGER]["kind"][rows].argmax(1)
        for other in (FLOAT, FAKE_QUANT, LAST_BLESSED):
            theirs = scores[other]["kind"][rows].argmax(1)
            paired = found.measured.paired[other, "kind", cut]
            assert paired.examples == rows.sum()
            assert paired.agreement == pytest.approx(np.average(ours == theirs, weights=weights), abs=1e-9)
            assert paired.better == np.sum((ours == labels) & (theirs != labels))
            assert paired.worse == np.sum((ours != labels) & (theirs == labels))
            difference = np.average((ours == labels) * 1.0 - (theirs == labels), weights=weights)
            assert paired.difference == pytest.approx(difference, abs=1e-9)
            assert paired.low <= difference <= paired.high
            p = binomtest(paired.better, paired.better + paired.worse).pvalue if paired.better + paired.worse else 1.0
            assert paired.mcnemar_p == pytest.approx(p, abs=1e-9)
            for name, error, ties in (
                (INTEGER, paired.calibration_error, paired.ties),
                (other, paired.other_calibration_error, paired.other_ties),
            ):
                of_kind = scores[name]["kind"][rows].astype(np.float64)
                assert error == pytest.approx(_calibration_error(of_kind, labels, weights), abs=1e-9)
                assert ties == np.sum((of_kind == of_kind.max(axis=1, keepdims=True)).sum(axis=1) > 1)
            tags, other_tags = (scores[name]["tags"][rows] > 0.5 for name in (INTEGER, other))
            agreement = np.average((tags == other_tags).mean(1), weights=weights)
            assert found.measured.paired[other, "tags", cut].agreement == pytest.approx(agreement, abs=1e-9)
            assert np.isnan(found.measured.paired[other, "length", cut].agreement)
    of_float = found.measured.metrics[Cell(model=INTEGER, output="kind")]["agreement"]
    assert of_float == pytest.approx(found.measured.paired[FLOAT, "kind", ()].agreement, abs=1e-9)
    assert found.measured.degenerate == {}


def test_clipped_inputs_are_those_whose_integers_would_lie_beyond_their_type(
    found: Found, models: dict[str, types.Artifact], columns: dict[str, np.ndarray]
) -> None:
    interpreter = tf.lite.Interpreter(str(Path(models[INTEGER].uri) / "Format-Serving" / "tflite"))
    (source,) = interpreter.get_input_details()
    (quantized,) = [op["outputs"][0] for op in interpreter._get_ops_details() if source["index"] in op["inputs"]]
    scale, zero_point = interpreter._get_tensor_details(quantized, 0)["quantization"]
    integers = np.rint(columns["x"] / scale) + zero_point
    clipped = np.sum((integers < -128) | (integers > 127))
    assert clipped > 0
    assert found.measured.facts["clipped_inputs"] == pytest.approx(clipped / integers.size, abs=1e-9)
    (recorded,) = [one for one in _document(found)["inputs"] if one["model"] == INTEGER]
    assert recorded["input"] == "x"
    assert (recorded["values"], recorded["clipped"]) == (integers.size, clipped)
    assert recorded["lowest"] == pytest.approx(columns["x"].min())


def _document(found: Found) -> Any:
    return json.loads((Path(found.path) / "paired.json").read_text())


def test_flips_of_every_output_with_classes_equal_numpy(
    found: Found, scores: dict[str, dict[str, np.ndarray]], columns: dict[str, np.ndarray]
) -> None:
    (flips,) = json.loads((Path(found.path) / "flips.json").read_text())["flips"]
    assert flips["output"] == "kind"  # lengths are values, and of tags there are several
    float_scores, integer_scores = scores[FLOAT]["kind"], scores[INTEGER]["kind"]
    said, ours, label = float_scores.argmax(1), integer_scores.argmax(1), columns["kind"]
    rows = np.flatnonzero(said != ours)
    assert len(rows) > 3
    for one in flips["pairs"]:
        of = rows[(said[rows] == one["float"]) & (ours[rows] == one["integer"])]
        assert one["examples"] == len(of)
        assert one["only_float_right"] == (said[of] == label[of]).sum()
        assert one["only_integer_right"] == (ours[of] == label[of]).sum()
    assert sum(one["examples"] for one in flips["pairs"]) == len(rows)
    margins = float_scores[rows, said[rows]] - float_scores[rows, ours[rows]]
    worst = rows[np.argsort(-margins)[:3]]
    assert len(flips["examples"]) == 3
    for one, row in zip(flips["examples"], worst, strict=True):
        assert (one["label"], one["float"]["class"], one["integer"]["class"]) == (label[row], said[row], ours[row])
        assert one["float"]["score"] == pytest.approx(float_scores[row, said[row]], rel=1e-6)
        assert one["integer"]["score"] == pytest.approx(integer_scores[row, ours[row]], rel=1e-6)
        assert one["inputs"] == [{"name": "x", "values": pytest.approx(columns["x"][row].tolist())}]


def test_results_are_those_of_tfma_itself_for_the_same_predictions(
    found: Found, scores: dict[str, dict[str, np.ndarray]], columns: dict[str, np.ndarray]
) -> None:
    """TFMA on a table of labels and predictions, for what numpy does not have in a line."""
    import pandas as pd

    tags, predicted = columns["tags"].ravel(), scores[INTEGER]["tags"].ravel()
    weights = np.repeat(columns["weight"], 3)  # of each of the three tags
    table = pd.DataFrame({"label": tags.astype(float), "prediction": predicted, "weight": weights})
    config = tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(label_key="label", prediction_key="prediction", example_weight_key="weight"),
        ],
        metrics_specs=[tfma.MetricsSpec(metrics=[tfma.MetricConfig(class_name="AUC")])],
        slicing_specs=[tfma.SlicingSpec()],
    )
    auc = tfma.analyze_raw_data(table, config).get_metrics_for_slice()["auc"]["doubleValue"]
    weighted = found.measured.metrics[Cell(model=INTEGER, output="tags")]["auc"]
    assert weighted == pytest.approx(auc, abs=1e-6)


def test_tfma_reads_the_results_of_every_model(found: Found, columns: dict[str, np.ndarray]) -> None:
    for name in (INTEGER, FLOAT, FAKE_QUANT, LAST_BLESSED):
        result = tfma.load_eval_result(found.path, model_name=name)
        assert len(result.slicing_metrics) == 13
        assert result.get_metrics_for_slice((("country", "AT"),), output_name="kind")["accuracy"]["doubleValue"] > 0.5
    document = json.loads((Path(found.path) / "paired.json").read_text())
    (of_all,) = [
        one for one in document["paired"] if (one["model"], one["output"], one["slice"]) == ("float", "kind", [])
    ]
    assert sum(one["examples"] for one in of_all["by_class"]) == len(columns["kind"])
    assert sum(one["better"] for one in of_all["by_class"]) == of_all["better"]


@pytest.mark.parametrize("name", [INTEGER, FLOAT, FAKE_QUANT, LAST_BLESSED])
def test_view_of_tfma_shows_every_slice(found: Found, name: str, columns: dict[str, np.ndarray]) -> None:
    result = tfma.load_eval_result(found.path, model_name=name)
    viewer = tfma.view.render_slicing_metrics(result, slicing_column="country")
    shown = {row["slice"]: row["metrics"]["kind"][""]["example_count"]["doubleValue"] for row in viewer.data}
    assert shown == {f"country:{one.decode()}": (columns["country"] == one).sum() for one in (b"AT", b"BE", b"CH")}


def test_pass_slices_by_raw_features_and_says_which_no_example_has(
    single: dict[str, types.Artifact], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = example_columns(60)
    columns["shop"] = np.arange(60) % 4 + 10  # which no transform makes
    examples = write_examples(columns, tmp_path / "examples")
    metrics = {"accuracy": "SparseCategoricalAccuracy", "matrix": "MultiClassConfusionMatrixPlot"}
    task = Task(label_key="kind", metrics=metrics, slices=[("shop",), ("country", "shop"), ("shpo",)])
    found = _run(task, single, examples, tmp_path)
    counted = {cut: count for cut, count in found.measured.examples.items() if [name for name, _ in cut] == ["shop"]}
    assert counted == {(("shop", str(shop)),): 15 for shop in range(10, 14)}
    both = sum(count for cut, count in found.measured.examples.items() if len(cut) == 2)
    assert both == 60
    assert found.measured.facts["slices_without_examples"] == "shpo"
    assert "no example is in a slice by shpo" in caplog.text
    plots = dict(tfma.load_eval_result(found.path, model_name=INTEGER).plots)
    matrix = plots[("shop", 11),][""][""]["multiClassConfusionMatrixAtThresholds"]["matrices"][0]["entries"]
    assert sum(entry["numWeightedExamples"] for entry in matrix) == 15


def test_pass_feeds_the_last_blessed_model_by_its_own_transform(
    single: dict[str, types.Artifact], tmp_path: Path
) -> None:
    examples = write_examples(example_columns(60), tmp_path / "examples")
    task = Task(label_key="kind", metrics={"loss": "SparseCategoricalCrossentropy"})
    alone = _run(task, single, examples, tmp_path / "alone").measured
    task = dataclasses.replace(task, models=(INTEGER, FLOAT, LAST_BLESSED))
    models = {
        INTEGER: EvaluatedModel(("kind",), 0.1, scale=50.0).save_tflite(tmp_path / "integer"),
        FLOAT: EvaluatedModel(("kind",), 0.1, scale=50.0).save(tmp_path / "float"),
        LAST_BLESSED: single[INTEGER],
    }
    for name, sha256 in ((INTEGER, "new"), (LAST_BLESSED, "old")):
        models[name].set_string_custom_property("transform_sha256", sha256)
    models[LAST_BLESSED].set_string_custom_property("float_model_uri", single[FLOAT].uri)
    found = _run(task, models, examples, tmp_path / "both").measured
    assert found.metrics[Cell(model=LAST_BLESSED)]["loss"] == alone.metrics[Cell(model=INTEGER)]["loss"]
    models[LAST_BLESSED].set_string_custom_property("transform_sha256", "new")
    wrong = _run(task, models, examples, tmp_path / "wrong").measured
    assert wrong.metrics[Cell(model=LAST_BLESSED)]["loss"] != alone.metrics[Cell(model=INTEGER)]["loss"]


def test_pass_runs_a_float_model_whose_batch_is_one(single: dict[str, types.Artifact], tmp_path: Path) -> None:
    examples = write_examples(example_columns(30), tmp_path / "examples")
    task = Task(label_key="kind", metrics={"loss": "SparseCategoricalCrossentropy"})
    of_one = {**single, FLOAT: EvaluatedModel(("kind",)).save(tmp_path / "float", batch=1)}
    many, one = (
        _run(task, models, examples, tmp_path / name).measured for name, models in (("many", single), ("one", of_one))
    )
    for cell in (Cell(model=FLOAT), Cell(model=INTEGER)):
        assert one.metrics[cell] == pytest.approx(many.metrics[cell], abs=1e-6)
    assert one.paired[FLOAT, "", ()].agreement == many.paired[FLOAT, "", ()].agreement


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, types.Artifact]:
    directory = tmp_path_factory.mktemp("single")
    return {
        INTEGER: EvaluatedModel(("kind",)).save_tflite(directory / "integer"),
        FLOAT: EvaluatedModel(("kind",)).save(directory / "float"),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.pop("x"), r"by the transform of model 'float': Feature: x \(data type: float\) is required"),
        (lambda made: made.update(x=made["x"][:, :3]), "by the transform of model 'float': Key: x, .*Values size: 3"),
        (
            lambda made: made.update(x=made["kind"]),
            "by the transform of model 'float': Key: x, .*Data types don't match",
        ),
        (
            lambda made: made["x"].__setitem__((5, 0), np.nan),
            "input 'x' has values that are infinite or not numbers in 1 of",
        ),
        (
            lambda made: made["kind"].__setitem__(5, 7),
            r"label 'kind': got 7, expected 0\.\.2, the classes of the model",
        ),
        (lambda made: made["weight"].__setitem__(5, -1), "weight 'weight': expected one finite number of 0 or more"),
    ],
)
def test_pass_says_what_is_wrong_with_examples(
    single: dict[str, types.Artifact],
    tmp_path: Path,
    change: Callable[[dict[str, np.ndarray]], Any],
    message: str,
) -> None:
    made = example_columns(30)
    change(made)
    task = Task(label_key="kind", metrics={"accuracy": "SparseCategoricalAccuracy"}, weight_key="weight")
    with pytest.raises((ValueError, RuntimeError), match=message):
        _run(task, single, write_examples(made, tmp_path / "examples"), tmp_path)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("country", "label 'country': got object, expected numbers"),
        ("nothing", "label 'nothing' is no transformed feature; there are country, kind"),
        ("tags", "label 'tags': "),
    ],
)
def test_pass_says_what_is_wrong_with_the_label_key(
    single: dict[str, types.Artifact], tmp_path: Path, label: str, message: str
) -> None:
    made = example_columns(30)
    if label == "tags":
        made["tags"][:] = 9
    task = Task(label_key=label, metrics={"accuracy": "SparseCategoricalAccuracy"})
    with pytest.raises((ValueError, RuntimeError), match=message):
        _run(task, single, write_examples(made, tmp_path / "examples"), tmp_path)


def _with_one_hot_labels(count: int) -> dict[str, np.ndarray]:
    columns = example_columns(count)
    return {**columns, "tags": np.eye(3, dtype=columns["tags"].dtype)[columns["kind"]]}


def test_pass_finds_degenerate_outputs_and_unclear_labels(single: dict[str, types.Artifact], tmp_path: Path) -> None:
    class Constant(EvaluatedModel):
        def __init__(self) -> None:
            super().__init__(("kind",))
            self.dense = tf.function(lambda x: {"kind": tf.nn.softmax(x @ tf.ones([4, 3]))})

    models = {**single, INTEGER: Constant().save_tflite(tmp_path / "constant")}
    task = Task(label_key="tags", metrics={"accuracy": "CategoricalAccuracy"})
    found = _run(task, models, write_examples(_with_one_hot_labels(60), tmp_path / "examples"), tmp_path)
    assert found.measured.degenerate == {(INTEGER, ""): ("constant", "one class")}
    assert found.measured.unclear == {
        "": "labels are one-hot and scores add up to 1, yet they count as labels; set label_kind='classes', or 'labels'"
    }


class _OneScore(EvaluatedModel):
    """The probability that one of the inputs is positive."""

    def __init__(self, column: int) -> None:
        super().__init__(("kind",))
        self.dense = tf.function(lambda x: {"kind": tf.sigmoid(4 * x[:, column : column + 1])})


def test_pass_asks_for_the_accuracy_that_counts_decisions_when_another_is_given(tmp_path: Path) -> None:
    columns = example_columns(300)
    columns["kind"] = (columns["x"][:, 0] > 0).astype(np.int64)
    examples = write_examples(columns, tmp_path / "examples")
    # The float model is right on all, the integer one tosses coins: argmax over one score is 0 for both.
    models = {INTEGER: _OneScore(1).save_tflite(tmp_path / "integer"), FLOAT: _OneScore(0).save(tmp_path / "float")}
    tasks = (
        Task(label_key="kind", metrics={"accuracy": name}) for name in ("SparseCategoricalAccuracy", "BinaryAccuracy")
    )
    default, binary = (_run(task, models, examples, tmp_path / str(n)).measured for n, task in enumerate(tasks))
    of_default = [default.metrics[Cell(model=model)]["accuracy"] for model in (FLOAT, INTEGER)]
    assert of_default == [pytest.approx(np.mean(columns["kind"] == 0))] * 2
    assert "of the float model is" in default.unclear[""]
    assert default.unclear[""].endswith("but 1 of its decisions are right; use BinaryAccuracy")
    assert binary.unclear == {}
    assert binary.metrics[Cell(model=FLOAT)]["accuracy"] == 1.0
    assert binary.metrics[Cell(model=INTEGER)]["accuracy"] == pytest.approx(0.5, abs=0.1)


def test_pass_takes_as_many_examples_at_once_as_fit_and_measures_the_same(
    single: dict[str, types.Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = write_examples(example_columns(60), tmp_path / "examples")
    task = Task(label_key="kind", metrics={"accuracy": "SparseCategoricalAccuracy"})
    sizes: list[int] = []

    def noted(file: str, size: int) -> Any:
        sizes.append(size)
        return record_batches(file, size)

    monkeypatch.setattr(paired_predictions, "record_batches", noted)
    together = _run(task, single, examples, tmp_path / "together").measured
    # Of one example 4 inputs, and 3 outputs of both models: 10 numbers of 4 bytes.
    monkeypatch.setattr(paired_predictions, "_BATCH_BYTES", 7 * 40 + 39)
    in_sevens = _run(task, single, examples, tmp_path / "in_sevens").measured
    monkeypatch.setattr(paired_predictions, "_BATCH_BYTES", 39)
    one_by_one = _run(task, single, examples, tmp_path / "one_by_one").measured
    assert sizes == [500] * 3 + [7] * 3 + [1] * 3
    assert together.examples == in_sevens.examples == one_by_one.examples == {(): 60}
    for found in (in_sevens, one_by_one):
        assert found.metrics == together.metrics
        assert found.paired[FLOAT, "", ()].agreement == together.paired[FLOAT, "", ()].agreement


@pytest.mark.parametrize(("threads", "of_each"), [(1, 1), (8, 4)])
def test_pass_divides_threads_among_its_models(
    single: dict[str, types.Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, of_each: int
) -> None:
    examples = write_examples(example_columns(60), tmp_path / "examples")
    found: list[int] = []

    def noted(tflite: bytes, threads: int) -> IntegerModel:
        found.append(threads)
        return IntegerModel(tflite, threads=threads)

    monkeypatch.setattr(paired_predictions, "IntegerModel", noted)
    task = Task(label_key="kind", metrics={"accuracy": "SparseCategoricalAccuracy"})
    assert _run(task, single, examples, tmp_path, threads).measured.examples == {(): 60}
    assert found == [of_each]  # of a float and an integer model


@pytest.mark.parametrize("left", [5, 700])  # within the head of the first record, and within a later one
def test_pass_raises_and_names_the_file_when_it_was_cut_short(
    single: dict[str, types.Artifact], tmp_path: Path, left: int
) -> None:
    examples = write_examples(example_columns(30), tmp_path / "examples")
    os.truncate(tmp_path / "examples" / "Split-eval" / "part-1", left)
    task = Task(label_key="kind", metrics={"accuracy": "SparseCategoricalAccuracy"})
    with pytest.raises((ValueError, RuntimeError), match=r"part-1 is corrupt after record \d: .*; write it anew"):
        _run(task, single, examples, tmp_path)
    assert not (tmp_path / "evaluation").exists()


def test_pass_of_an_empty_split_measures_no_examples(single: dict[str, types.Artifact], tmp_path: Path) -> None:
    task = Task(label_key="kind", metrics={"accuracy": "SparseCategoricalAccuracy"})
    found = _run(task, single, write_examples(example_columns(0), tmp_path / "examples"), tmp_path)
    assert found.measured.examples == {}


def test_metrics_of_an_output_without_a_label_are_an_error() -> None:
    task = Task(label_key={"kind": "kind"}, metrics={"size/error": "MeanAbsoluteError"})
    with pytest.raises(ValueError, match="metrics of outputs size, which have no label_key"):
        eval_config(task, Gates.of("agreement of kind >= 0.5"))
    with pytest.raises(
        ValueError, match="metric 'Accurracy' is neither one of TFMA's nor a metric or loss of tf_keras"
    ):
        eval_config(dataclasses.replace(task, metrics={"a": "Accurracy"}), Gates.of("agreement of kind >= 0.5"))


def test_only_output_may_have_its_label_by_name_and_one_hot(single: dict[str, types.Artifact], tmp_path: Path) -> None:
    examples = write_examples(_with_one_hot_labels(60), tmp_path / "examples")
    tasks = (
        Task(label_key="kind", metrics={"accuracy": "SparseCategoricalAccuracy"}),
        Task(label_key={"kind": "tags"}, label_kind="classes", metrics={"accuracy": "CategoricalAccuracy"}),
    )
    found = [_run(task, single, examples, tmp_path / str(number)).measured for number, task in enumerate(tasks)]
    cells = [Cell(model=INTEGER), Cell(model=INTEGER, output="kind")]
    assert found[0].metrics[cells[0]] == found[1].metrics[cells[1]]
    assert found[0].paired[FLOAT, "", ()] == found[1].paired[FLOAT, "kind", ()]
