import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tf_keras
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_specs, metric_types
from tensorflow_model_analysis.utils import util

from components.batched_inputs import EXAMPLE_FEATURES
from components.batched_keras import KerasFn, keras_metric
from components.batched_metrics import accuracies_of, features_of, metric_config, metrics_spec
from components.evaluation.gate import Gate
from components.evaluation.metric_directions import direction
from components.evaluation.task_metric import TaskMetric

# TFMA's, of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning"),
]
_COUNT = 60
_MODELS = tfma.EvalConfig(
    model_specs=[tfma.ModelSpec(name="integer"), tfma.ModelSpec(name="float", is_baseline=True)],
)
_KEY = metric_types.MetricKey(name="m", model_name="integer", output_name="", example_weighted=True)
_CONFIGS: dict[str, dict[str, Any]] = {
    "ConfusionMatrixAtThresholds": {"thresholds": [0.3, 0.5]},
    "FalseNegativeFeatureSampler": {"feature_key": "query", "sample_size": 1},
    "FalsePositiveFeatureSampler": {"feature_key": "query", "sample_size": 1},
    "Mean": {"feature_key_path": ["features", "size"]},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtFalsePositiveRate": {"false_positive_rate": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "ThresholdAtRecall": {"recall": 0.5},
    "NDCG": {"gain_key": "size"},
    "MinLabelPosition": {"label_key": "label"},
    "ObjectDetectionPrecisionAtRecall": {"recall": 0.5},
    "ObjectDetectionThresholdAtRecall": {"recall": 0.5},
    "Rouge": {"rouge_type": "rouge1"},
}
_SEGMENTS = {"class_ids": [1], "ground_truth_key": "a", "prediction_key": "b"}
_RANKINGS = ("NDCG", "MinLabelPosition", "QueryStatistics")
_OF_CLASSES = ("MultiClass", "SparseCategorical", "MultiLabel", "CategoricalCrossEntropy")


# Counts, averages, plots, thresholds, and what there is no direction of.
_WITHOUT_DIRECTION = re.compile(
    r"Bleu|Rouge|Calibration|.*Plot|.*ConfusionMatrix.*|.*Count|Mean|Mean(Label|Prediction|Tensor|MetricWrapper)|Metric|Sum"
    r"|.*Attributions|.*FeatureSampler|QueryStatistics|Reduction|Prevalence|PredictedPositiveRate|.*ThresholdAtRecall"
    r"|(Pos|Neg)To(Pos|Neg)FlipRate"
)


def test_every_metric_of_tfma_and_keras_is_better_one_way_or_named_as_one_that_is_not() -> None:
    keras = {
        name
        for place in (tf_keras.metrics, tf_keras.losses)
        for name, one in vars(place).items()
        if inspect.isclass(one)
    }
    names = {*metric_types.registered_metrics(), *keras}
    without = {name for name in names if not direction(name)}
    assert len(names) > 120
    assert sorted(name for name in without if not _WITHOUT_DIRECTION.fullmatch(name)) == []
    assert sorted(name for name in names - without if _WITHOUT_DIRECTION.fullmatch(name)) == []


def test_accuracies_of_a_configuration_are_found_whether_tfma_or_keras_computes_them() -> None:
    metrics = {
        "binary": TaskMetric(class_name="BinaryAccuracy"),  # TFMA's, of examples
        "of_keras": TaskMetric(class_name="tf_keras.metrics.BinaryAccuracy"),
        "accuracy": TaskMetric(class_name="SparseCategoricalAccuracy"),
        "at_zero": TaskMetric(class_name="BinaryAccuracy", config={"threshold": 0.0}),
        "error": TaskMetric(class_name="MeanAbsoluteError"),
    }
    configs = [metric_config(name, metric, _MODELS) for name, metric in metrics.items()]
    config = tfma.EvalConfig(
        metrics_specs=[
            tfma.MetricsSpec(output_names=["a"], metrics=configs),
            tfma.MetricsSpec(metrics=[tfma.MetricConfig(class_name="Agreement", config='{"name": "agreement"}')]),
        ]
    )
    assert accuracies_of(config) == {
        ("a", name): metrics[name].class_name for name in ("binary", "of_keras", "accuracy")
    }


def _labels(classes: bool) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    if classes:
        scores = random.dirichlet(np.ones(3), _COUNT).astype(np.float32)
        other = random.dirichlet(np.ones(3), _COUNT).astype(np.float32)
        return {"labels": np.eye(3, dtype=np.int64)[random.integers(0, 3, _COUNT)], "integer": scores, "float": other}
    return {
        "labels": random.integers(0, 2, (_COUNT, 1)),
        "integer": random.uniform(0.01, 0.99, (_COUNT, 1)).astype(np.float32),
        "float": random.uniform(0.01, 0.99, (_COUNT, 1)).astype(np.float32),
    }


def _batches(values: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for start in range(0, _COUNT, 25):
        rows = range(_COUNT)[start : start + 25]
        yield {
            constants.LABELS_KEY: dict.fromkeys(("integer", "float"), values["labels"][rows]),
            constants.PREDICTIONS_KEY: {name: values[name][rows] for name in ("integer", "float")},
            constants.EXAMPLE_WEIGHTS_KEY: {name: np.ones((len(rows), 1)) for name in ("integer", "float")},
            constants.FEATURES_KEY: {},
            EXAMPLE_FEATURES: [_features(row) for row in rows],
            constants.SLICE_KEY_TYPES_KEY: [()],
        }


def _features(row: int) -> dict[str, np.ndarray]:
    return {
        "query": np.array([f"q{row % 7}".encode()]),
        "size": np.array([float(row % 4)]),
        "label": np.array([row % 2]),
    }


def _examples(values: dict[str, np.ndarray], query_key: str) -> Iterator[Any]:
    examples = [
        {
            constants.LABELS_KEY: dict.fromkeys(("integer", "float"), values["labels"][row]),
            constants.PREDICTIONS_KEY: {name: values[name][row] for name in ("integer", "float")},
            constants.EXAMPLE_WEIGHTS_KEY: {name: np.ones(1) for name in ("integer", "float")},
            constants.FEATURES_KEY: _features(row),
            constants.SLICE_KEY_TYPES_KEY: [()],
        }
        for row in range(_COUNT)
    ]
    if not query_key:
        yield from examples
        return
    for query in range(7):
        yield util.merge_extracts(examples[query::7])


def _results(spec: tfma.MetricsSpec, elements: list[Any], parts: int) -> dict[Any, Any]:
    """What TFMA's evaluator does with computations, of parts that are merged."""
    spec.model_names.extend(["integer", "float"])
    found: dict[Any, Any] = {}
    done = set()
    for one in metric_specs.to_computations([spec], eval_config=_MODELS):
        if isinstance(one, metric_types.MetricComputation):
            if one in done:
                continue
            done.add(one)
            one.combiner.setup()
            accumulators = []
            for part in range(parts):
                accumulator = one.combiner.create_accumulator()
                for element in elements[part::parts]:
                    inputs = [dict(element)]
                    for preprocessor in one.preprocessors:
                        inputs = [made for each in inputs for made in preprocessor.process(each)]
                    for each in inputs:
                        accumulator = one.combiner.add_input(accumulator, metric_types.StandardMetricInputs(each))
                accumulators.append(accumulator)
            found.update(one.combiner.extract_output(one.combiner.merge_accumulators(accumulators)))
        elif isinstance(one, metric_types.DerivedMetricComputation):
            found.update(one.result(found))
    return {key: value for key, value in found.items() if not key.name.startswith("_")}


def _batched_spec(metric: TaskMetric) -> tfma.MetricsSpec:
    return tfma.MetricsSpec(metrics=[metric_config("m", metric, _MODELS)])


def _assert_equals_example_by_example(metric: TaskMetric, classes: bool) -> None:
    values = _labels(classes)
    found = _results(_batched_spec(metric), list(_batches(values)), parts=2)
    expected = _results(metrics_spec("m", metric), list(_examples(values, metric.query_key)), parts=1)
    assert found
    assert {str(key) for key in found} == {str(key) for key in expected}
    of_text = {str(key): value for key, value in expected.items()}
    for key, value in found.items():
        if metric.class_name.endswith("FeatureSampler"):  # at random
            assert len(value) == len(of_text[str(key)])
        else:
            _assert_same(value, of_text[str(key)])


def _assert_same(found: Any, expected: Any) -> None:
    if isinstance(found, float | int | np.ndarray | np.generic) and np.asarray(found).dtype.kind in "fiu":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    elif isinstance(found, dict):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            _assert_same(value, expected[name])
    else:
        assert str(found) == str(expected)


def _options(name: str) -> TaskMetric:
    config = _SEGMENTS if name.startswith("SemanticSegmentation") else _CONFIGS.get(name, {})
    query_key = "query" if name in _RANKINGS else ""
    return TaskMetric(class_name=name, config=config, query_key=query_key, top_k=(2,) if name == "NDCG" else ())


@pytest.mark.parametrize("name", sorted(metric_types.registered_metrics()))
def test_metric_of_tfma_equals_itself_example_by_example_or_is_refused_with_the_reason(name: str) -> None:
    metric = _options(name)
    module = metric_types.registered_metrics()[name].__module__.rpartition(".")[2]
    texts = ("attributions", "bleu", "rouge", "object_detection", "semantic_segmentation", "set_match")
    if module.startswith(texts):
        with pytest.raises(ValueError, match=f"metric 'm', {name}: (it needs|ImportError|ModuleNotFoundError)"):
            _batched_spec(metric)
    elif name in ("BooleanFlipRates", "QueryStatistics"):  # several figures, each with a name of its own
        with pytest.raises(ValueError, match="unexpected keyword argument 'name'"):
            _batched_spec(metric)
    elif name != "Agreement":  # ours, over batches
        _assert_equals_example_by_example(metric, classes=name.startswith(_OF_CLASSES))


_KERAS_CONFIGS: dict[str, dict[str, Any]] = {
    "IoU": {"num_classes": 3, "target_class_ids": [0], "sparse_y_true": False, "sparse_y_pred": False},
    "MeanIoU": {"num_classes": 3, "sparse_y_true": False, "sparse_y_pred": False},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [0, 2]},
    "OneHotMeanIoU": {"num_classes": 3},
    "MeanRelativeError": {"normalizer": [2.0]},
    "F1Score": {"average": "macro"},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
}
_REASONS = {
    "Mean": "takes values",
    "MeanTensor": "takes values",
    "Sum": "takes values",
    "Metric": "takes values",
    "MeanMetricWrapper": "missing 1 required positional argument: 'fn'",
    "Loss": "is abstract",
}


def _keras_names() -> list[str]:
    return [
        f"{place.__name__}.{name}"
        for place in (tf_keras.metrics, tf_keras.losses)
        for name in sorted(dir(place))
        if inspect.isclass(getattr(place, name)) and name not in ("Reduction",)
    ]


@pytest.mark.parametrize("path", _keras_names())
def test_metric_of_keras_equals_itself_on_all_examples_or_is_refused_with_the_reason(path: str) -> None:
    name = path.rpartition(".")[2]
    metric = TaskMetric(class_name=path, config=_KERAS_CONFIGS.get(name, {}))
    if name in _REASONS:
        with pytest.raises(ValueError, match=f"metric 'm', .*({_REASONS[name]})"):
            _batched_spec(metric)
        return
    values = _labels(classes=name != "BinaryIoU")
    if name.startswith("Sparse"):
        values["labels"] = values["labels"].argmax(1)[:, None]
    found = _results(_batched_spec(metric), list(_batches(values)), parts=2)
    place = tf_keras.losses if ".losses." in path else tf_keras.metrics
    plain = getattr(place, name)(**metric.config)
    for model in ("integer", "float"):
        labels, scores = values["labels"], values[model]
        if place is tf_keras.losses:
            expected = float(np.mean(plain.call(tf.constant(labels, tf.float32), scores)))
        else:
            plain.reset_state()
            plain.update_state(labels, scores)
            expected = plain.result().numpy()
        (value,) = (value for key, value in found.items() if key.model_name == model)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        TaskMetric(class_name="Precision", class_ids=(0, 2)),
        TaskMetric(class_name="Recall", k=(1, 2)),
        TaskMetric(class_name="Recall", top_k=(2,)),
        TaskMetric(class_name="AUC", aggregate="micro"),
        TaskMetric(class_name="Precision", aggregate="macro", class_weights={0: 1.0, 1: 1.0, 2: 2.0}),
        TaskMetric(class_name="Recall", aggregate="weighted_macro", class_weights={0: 1.0, 1: 1.0, 2: 1.0}),
        TaskMetric(class_name="tf_keras.metrics.RootMeanSquaredError", class_ids=(1,)),
        TaskMetric(class_name="BinaryCrossentropy", class_ids=(1,)),
    ],
    ids=str,
)
def test_metric_of_some_classes_equals_itself_example_by_example(metric: TaskMetric) -> None:
    _assert_equals_example_by_example(metric, classes=True)
    assert TaskMetric(**json.loads(json.dumps(dataclasses.asdict(metric)))) == metric


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (TaskMetric(class_name="MeanIoU"), "num_classes"),
        (TaskMetric(class_name="PrecisionAtRecall"), "recall"),
        (TaskMetric(class_name="Precision", config={"treshold": 0.5}), "treshold"),
        (TaskMetric(class_name="Precision", aggregate="macro"), "class_weights are required"),
        (TaskMetric(class_name="SparseCategoricalAccuracy", query_key="query"), "takes no query_key"),
        (TaskMetric(class_name="nowhere.Metric"), "'nowhere' cannot be imported"),
        (
            TaskMetric(class_name="tf_keras.metrics.AUC", class_ids=(1,)),
            "takes its own metric of that name; give 'AUC'",
        ),
        (TaskMetric(class_name="MAE"), "neither one of TFMA's nor a metric or loss of tf_keras"),
    ],
    ids=str,
)
def test_metric_is_refused_with_name_and_reason_when_nothing_can_be_made_of_it(metric: TaskMetric, reason: str) -> None:
    with pytest.raises(ValueError, match=f"metric 'm', {metric.class_name}: .*{reason}"):
        metric_config("m", metric, _MODELS)


def test_features_of_metrics_are_those_that_they_read() -> None:
    metrics = [_options("NDCG"), _options("FalsePositiveFeatureSampler"), TaskMetric(class_name="AUC")]
    specs = [tfma.MetricsSpec(metrics=[metric_config(f"m{n}", one, _MODELS)]) for n, one in enumerate(metrics)]
    config = tfma.EvalConfig(model_specs=_MODELS.model_specs, metrics_specs=specs)
    assert features_of(config) == {"size", "query"}


@pytest.mark.parametrize("name", ["F1Score", "R2Score"])
def test_weighted_metric_that_makes_its_variables_late_equals_itself(name: str) -> None:
    values = _labels(classes=True)
    weights = np.random.default_rng(4).uniform(0, 2, _COUNT)
    path = f"tf_keras.metrics.{name}"
    fn = KerasFn(path, {}, _KEY)
    fn.setup()
    accumulator = fn.create_accumulator()
    for batch, rows in zip(_batches(values), np.split(np.arange(_COUNT), [25, 50]), strict=True):
        batch[constants.EXAMPLE_WEIGHTS_KEY] = {"integer": weights[rows][:, None]}
        accumulator = fn.add_input(accumulator, metric_types.StandardMetricInputs(batch))
    accumulator = fn.compact(accumulator)
    fresh = KerasFn(path, {}, _KEY)  # as in another worker
    fresh.setup()
    expected = keras_metric("m", path, {})
    expected.update_state(values["labels"], values["integer"], weights)
    found = fresh.extract_output(fresh.merge_accumulators([fresh.create_accumulator(), accumulator]))[_KEY]
    np.testing.assert_allclose(found, expected.result().numpy(), rtol=1e-12)


def test_accuracy_keeps_its_own_bound_and_the_next_worse_does_not() -> None:
    fn = KerasFn("SparseCategoricalAccuracy", {}, _KEY)
    fn.setup()
    random = np.random.default_rng(8)
    pairs = [(9, 10), (2, 3), (1, 20_000), (20_000, 20_000)]
    pairs += [(int(random.integers(1, count + 1)), int(count)) for count in random.integers(1, 20_001, 400)]

    def accuracy(right: int, count: int) -> float:
        accumulator = fn.create_accumulator()
        accumulator.sums = [np.float64(right), np.float64(count)]
        return float(fn.extract_output(accumulator)[_KEY])

    for right, count in pairs:
        at_least, at_most = (Gate.parse(f"accuracy {sign} {right / count!r}") for sign in (">=", "<="))
        got, worse = accuracy(right, count), accuracy(right - 1, count)
        assert got == right / count
        for gate in (at_least, Gate.parse(str(at_least))):
            assert gate.holds(got), (right, count)
            assert not gate.holds(worse), (right, count)
        assert at_most.holds(got)
        assert not at_most.holds(accuracy(right + 1, count))
        drop = Gate.parse(f"accuracy drop <= {1 / count!r}")
        assert drop.holds(got - worse)
        assert not drop.holds(got - accuracy(right - 2, count))


def test_accuracy_of_batches_is_of_double_precision() -> None:
    labels = np.arange(10)[:, None] % 3
    scores = np.eye(3, dtype=np.float32)[labels.ravel()]
    scores[9] = np.roll(scores[9], 1)
    fn = KerasFn("SparseCategoricalAccuracy", {}, _KEY._replace(example_weighted=False))
    fn.setup()
    batch = {
        constants.LABELS_KEY: {"integer": labels},
        constants.PREDICTIONS_KEY: {"integer": scores},
        constants.EXAMPLE_WEIGHTS_KEY: {"integer": np.ones((10, 1))},
    }
    accumulator = fn.add_input(fn.create_accumulator(), metric_types.StandardMetricInputs(batch))
    (value,) = fn.extract_output(accumulator).values()
    assert value == 0.9
