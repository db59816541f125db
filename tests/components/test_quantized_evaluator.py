import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components import Evaluator, Pusher
from tfx.components.evaluator import executor as evaluator_executor
from tfx.components.pusher import executor as pusher_executor
from tfx.proto import pusher_pb2
from tfx.types import channel_utils, standard_artifacts

from components import quantized_evaluator
from components.evaluation.gates import Gates, Override, today
from components.example_files import read_split
from components.quantization import convert
from components.quantization.interpreter import IntegerModel
from components.quantized_evaluator import QuantizedEvaluator
from components.targets.edge_tpu import CompilerOptions
from pipelines.configs import load_config

from conftest_components import Artifacts, new_models

pytestmark = pytest.mark.slow
_MODEL = channel_utils.as_channel([standard_artifacts.Model()])


@pytest.fixture(scope="session")
def integer_model(trained: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> types.Artifact:
    artifact = new_models(tmp_path_factory.mktemp("integer"), "tflite_model")["tflite_model"][0]
    serving = Path(artifact.uri) / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "tflite").write_bytes(convert(Path(trained["model"][0].uri) / "Format-Serving"))
    return artifact


def _component(channel: Any, *gates: str, **changes: Any) -> QuantizedEvaluator:
    arguments = {
        "examples": channel("examples"),
        "model": _MODEL,
        "baseline_model": _MODEL,
        "label_key": "label",
        "metrics": {"accuracy": "SparseCategoricalAccuracy", "loss": "SparseCategoricalCrossentropy"},
        "gates": Gates.of(*gates),
        "slices": [("label",)],
    }
    return QuantizedEvaluator(**{**arguments, **changes})


def _evaluate(
    component: QuantizedEvaluator,
    standard: Artifacts,
    trained: Artifacts,
    model: types.Artifact,
    directory: Path,
    **further: list[types.Artifact],
) -> Artifacts:
    outputs = new_models(directory, "evaluation", kind=standard_artifacts.ModelEvaluation)
    outputs |= new_models(directory, "blessing", kind=standard_artifacts.ModelBlessing)
    inputs = {"examples": standard["examples"], "model": [model], "baseline_model": trained["float_model"], **further}
    context = quantized_evaluator.Executor.Context(
        beam_pipeline_args=list(load_config("digits").beam_pipeline_args), tmp_dir=str(directory), unique_id="1"
    )
    quantized_evaluator.Executor(context).Do(inputs, outputs, component.exec_properties)
    return outputs


def test_evaluation_equals_a_plain_loop_over_the_same_examples(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    component = _component(channel, "accuracy >= 0.5", "agreement >= 0.5", "accuracy drop <= 0.5")
    outputs = _evaluate(component, standard, trained, integer_model, tmp_path)
    uri = outputs["evaluation"][0].uri

    loaded = tf.saved_model.load(str(Path(trained["float_model"][0].uri) / "Format-Serving"))
    examples = tf.constant(list(read_split(standard["examples"], "eval")))
    features = {n: v.numpy() for n, v in loaded.signatures["transform_features"](examples=examples).items()}
    label = features["label"].ravel()
    by_float = loaded.signatures["serving_default"](examples=examples)["probabilities"].numpy().argmax(1)
    tflite = (Path(integer_model.uri) / "Format-Serving" / "tflite").read_bytes()
    by_integer = IntegerModel(tflite).predict(features)["probabilities"].argmax(1)

    results = {name: tfma.load_eval_result(uri, model_name=name) for name in ("integer", "float")}
    overall = {name: result.get_metrics_for_slice(()) for name, result in results.items()}
    assert overall["float"]["accuracy"]["doubleValue"] == pytest.approx((by_float == label).mean())
    assert overall["integer"]["accuracy"]["doubleValue"] == pytest.approx((by_integer == label).mean())
    assert overall["integer"]["agreement"]["doubleValue"] == pytest.approx((by_integer == by_float).mean())
    assert overall["integer"]["example_count"]["doubleValue"] == len(label)
    sevens = results["integer"].get_metrics_for_slice((("label", 7),))
    assert sevens["accuracy"]["doubleValue"] == pytest.approx((by_integer == label)[label == 7].mean())
    assert sevens["agreement"]["doubleValue"] == pytest.approx((by_integer == by_float)[label == 7].mean())
    assert len(np.unique(label)) + 1 == len(results["integer"].slicing_metrics)
    accuracy = outputs["evaluation"][0].get_float_custom_property("integer_accuracy")
    assert accuracy == pytest.approx((by_integer == label).mean())

    report = json.loads((Path(outputs["blessing"][0].uri) / "report.json").read_text())["documents"]
    (pair,) = [one for one in report["paired"]["paired"] if one["model"] == "float" and one["slice"] == []]
    assert pair["accuracy"]["value"] == pytest.approx((by_integer == label).mean())
    assert pair["other_accuracy"]["value"] == pytest.approx((by_float == label).mean())
    (measured,) = [c for c in report["measurements"]["metrics"] if c["model"] == "float" and c["slice"] == []]
    assert measured["metrics"]["accuracy"] == pytest.approx((by_float == label).mean())
    assert [op["op"] for op in report["target_ops"]].count("CONV_2D") >= 1
    assert f">{pair['agreement']:.4f}</data>" in (Path(outputs["blessing"][0].uri) / "report.html").read_text()


@pytest.mark.parametrize(
    ("gates", "blessed"),
    [
        (("accuracy >= 0.5", "accuracy drop <= 0.5", "example_count >= 100"), True),
        pytest.param(("accuracy >= 1.01",), False, marks=pytest.mark.long),
        pytest.param(("accuracy >= 0.5", "accuracy drop <= -0.5"), False, marks=pytest.mark.long),
        pytest.param(("loss <= 0",), False, marks=pytest.mark.long),
        pytest.param(("loss rise <= -5",), False, marks=pytest.mark.long),
        pytest.param(("agreement >= 1.5", "accuracy >= 0.5"), False, marks=pytest.mark.long),
        pytest.param(("accuracy >= 0.5", "loss <= 0"), False, marks=pytest.mark.long),
        (
            ("accuracy >= 0.5", "model_bytes <= 100000", "accuracy[label=3] drop <= 0.5", "agreement[label=3] >= 0.5"),
            True,
        ),
        pytest.param(("accuracy >= 0.5", "accuracy[label=3] >= 1.01"), False, marks=pytest.mark.long),
        (("accuracy >= 0.5", "accuracy[label=3] drop <= -0.5"), False),
    ],
)
def test_blessing_says_for_every_gate_whether_it_holds(
    channel: Any,
    standard: Artifacts,
    trained: Artifacts,
    integer_model: types.Artifact,
    tmp_path: Path,
    gates: tuple[str, ...],
    blessed: bool,
) -> None:
    outputs = _evaluate(_component(channel, *gates), standard, trained, integer_model, tmp_path)
    blessing = outputs["blessing"][0]
    assert blessing.get_int_custom_property("blessed") == int(blessed)
    assert (Path(blessing.uri) / ("BLESSED" if blessed else "NOT_BLESSED")).exists()
    verdict = json.loads((Path(blessing.uri) / "verdict.json").read_text())
    assert verdict["blessed"] == blessed
    assert len(verdict["reasons"]) == len(gates)
    assert [reason["gate"] for reason in verdict["reasons"]] == list(gates)
    texts = json.loads(blessing.get_string_custom_property("reasons"))
    assert texts == [reason["text"] for reason in verdict["reasons"]]
    assert all(gate in text for gate, text in zip(gates, texts, strict=True))
    fails = [text.startswith("fails") for text in texts]
    # Only the last gate of each set is meant to fail, but for that of agreement, which is the first.
    expected = [False] * len(gates)
    if not blessed:
        expected[0 if "agreement" in gates[0] else -1] = True
    assert fails == expected
    assert tfma.load_validation_result(outputs["evaluation"][0].uri).validation_ok == blessed


def test_every_slice_is_gated_when_the_value_is_a_star(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    outputs = _evaluate(_component(channel, "accuracy[label=*] >= 1.01"), standard, trained, integer_model, tmp_path)
    verdict = json.loads((Path(outputs["blessing"][0].uri) / "verdict.json").read_text())
    assert [reason["slice"] for reason in verdict["reasons"]] == [[["label", str(digit)]] for digit in range(10)]
    counts = [reason["examples"] for reason in verdict["reasons"]]
    assert sum(counts) == outputs["evaluation"][0].get_float_custom_property("integer_example_count")
    assert {reason["code"] for reason in verdict["reasons"]} == {"value"}
    assert not tfma.load_validation_result(outputs["evaluation"][0].uri).validation_ok


def test_size_is_gated_by_the_bytes_of_the_file(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    size = (Path(integer_model.uri) / "Format-Serving" / "tflite").stat().st_size
    component = _component(channel, f"model_bytes <= {size - 1}")
    outputs = _evaluate(component, standard, trained, integer_model, tmp_path)
    verdict = json.loads((Path(outputs["blessing"][0].uri) / "verdict.json").read_text())
    assert (verdict["blessed"], verdict["reasons"][0]["got"]) == (False, size)


@pytest.mark.parametrize("bless_ungated", [False, True])
def test_evaluation_without_gates_says_so_loudly_and_blesses_only_when_it_is_told_to(
    channel: Any,
    standard: Artifacts,
    trained: Artifacts,
    integer_model: types.Artifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    bless_ungated: bool,
) -> None:
    component = _component(channel, gates=Gates(bless_ungated=bless_ungated))
    blessing = _evaluate(component, standard, trained, integer_model, tmp_path)["blessing"][0]
    assert blessing.get_int_custom_property("blessed") == int(bless_ungated)
    code = "blessed_ungated" if bless_ungated else "nothing_gated"
    assert blessing.get_string_custom_property("reason_codes") == code
    assert "NOTHING WAS GATED" in blessing.get_string_custom_property("reasons")
    assert [record.levelname for record in caplog.records if "NOTHING WAS GATED" in record.message] == ["WARNING"]


def test_override_blesses_and_is_kept_with_the_blessing(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    override = Override(gate="accuracy >= 1.01", because="a demo on Friday", until=today(), by="ada")
    component = _component(channel, gates=dataclasses.replace(Gates.of("accuracy >= 1.01"), overrides=(override,)))
    blessing = _evaluate(component, standard, trained, integer_model, tmp_path)["blessing"][0]
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("reason_codes") == "overridden"
    assert json.loads(blessing.get_string_custom_property("overrides")) == [
        {"gate": "accuracy >= 1.01", "because": "a demo on Friday", "until": today().isoformat(), "by": "ada"}
    ]


@pytest.mark.long
def test_evaluation_is_the_same_when_the_edges_are_floats(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    edged = new_models(tmp_path, "edged")["edged"][0]
    serving = Path(edged.uri) / "Format-Serving"
    serving.mkdir(parents=True)
    source = Path(trained["model"][0].uri) / "Format-Serving"
    (serving / "tflite").write_bytes(convert(source, io_dtype={"image": "float32", "probabilities": "float32"}))
    component = _component(channel, "accuracy >= 0.5")
    found = [
        _evaluate(component, standard, trained, model, tmp_path / name)["evaluation"][0]
        for name, model in (("integers", integer_model), ("floats", edged))
    ]
    for metric in ("accuracy", "agreement", "example_count"):
        values = [one.get_float_custom_property(f"integer_{metric}") for one in found]
        assert values[0] == values[1] > 0.5


@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")  # TFMA's, of its own
def test_executor_raises_and_publishes_nothing_when_a_metric_is_not_one_number(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    metrics = {"accuracy": "SparseCategoricalAccuracy", "matrix": "MultiClassConfusionMatrixPlot"}
    component = _component(channel, "matrix >= 0.5", metrics=metrics)
    with pytest.raises(ValueError, match="gates on metrics that are not single numbers: matrix"):
        _evaluate(component, standard, trained, integer_model, tmp_path)
    assert not (tmp_path / "evaluation").exists()


def test_executor_raises_and_publishes_nothing_when_the_split_is_empty_or_not_there(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    empty = standard_artifacts.Examples()
    empty.uri, empty.split_names = str(tmp_path / "examples"), '["eval"]'
    (tmp_path / "examples" / "Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(tmp_path / "examples" / "Split-eval" / "part-0")):
        pass
    given = {**standard, "examples": [empty]}
    with pytest.raises(ValueError, match="split 'eval' has no examples to evaluate; check the input of the ExampleGen"):
        _evaluate(_component(channel, "accuracy >= 0"), given, trained, integer_model, tmp_path)
    with pytest.raises(ValueError, match="test"):
        _evaluate(_component(channel, "accuracy >= 0", split="test"), given, trained, integer_model, tmp_path)
    assert not (tmp_path / "evaluation").exists()
    assert not (tmp_path / "blessing").exists()


@pytest.mark.parametrize(("gate", "blessed"), [("accuracy >= 0.5", True), ("accuracy >= 1.01", False)])
def test_stock_pusher_honours_the_blessing(
    channel: Any,
    standard: Artifacts,
    trained: Artifacts,
    integer_model: types.Artifact,
    tmp_path: Path,
    gate: str,
    blessed: bool,
) -> None:
    blessing = _evaluate(_component(channel, gate), standard, trained, integer_model, tmp_path)["blessing"]
    pushed = new_models(tmp_path, "pushed_model", kind=standard_artifacts.PushedModel)
    filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(tmp_path / "destination"))
    pusher = Pusher(
        model=_MODEL,
        model_blessing=channel_utils.as_channel(blessing),
        push_destination=pusher_pb2.PushDestination(filesystem=filesystem),
    )
    inputs = {"model": [integer_model], "model_blessing": blessing}
    pusher_executor.Executor().Do(inputs, pushed, pusher.exec_properties)
    assert pushed["pushed_model"][0].get_int_custom_property("pushed") == int(blessed)
    assert [path.name for path in (tmp_path / "destination").rglob("*") if path.is_file()] == ["tflite"] * blessed


@pytest.mark.parametrize("kind", ["float", "integer"])
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")  # TFMA's, of its own
def test_stock_evaluator_reads_our_models(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path, kind: str
) -> None:
    """The float model on raw examples; the integer one on transformed ones, since it transforms nothing itself."""
    outputs = _evaluate(_component(channel, "accuracy >= 0.5"), standard, trained, integer_model, tmp_path)
    spec = {
        "float": tfma.ModelSpec(label_key="label", signature_name="serving_default"),
        "integer": tfma.ModelSpec(label_key="label", model_type="tf_lite"),
    }[kind]
    threshold = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(lower_bound={"value": 0.5}))
    metric = tfma.MetricConfig(
        class_name="SparseCategoricalAccuracy", config='{"name": "accuracy"}', threshold=threshold
    )
    config = tfma.EvalConfig(
        model_specs=[spec], metrics_specs=[tfma.MetricsSpec(metrics=[metric])], slicing_specs=[tfma.SlicingSpec()]
    )
    inputs = {
        "examples": standard["examples" if kind == "float" else "transformed_examples"],
        "model": trained["float_model"] if kind == "float" else [integer_model],
    }
    found = new_models(tmp_path / "stock", "evaluation", kind=standard_artifacts.ModelEvaluation)
    found |= new_models(tmp_path / "stock", "blessing", kind=standard_artifacts.ModelBlessing)
    component = Evaluator(examples=channel("examples"), model=_MODEL, eval_config=config)
    context = evaluator_executor.Executor.Context(
        beam_pipeline_args=list(load_config("digits").beam_pipeline_args), tmp_dir=str(tmp_path), unique_id="2"
    )
    evaluator_executor.Executor(context).Do(inputs, found, component.exec_properties)
    assert found["blessing"][0].get_int_custom_property("blessed") == 1
    stock = tfma.load_eval_result(found["evaluation"][0].uri).get_metrics_for_slice()["accuracy"]["doubleValue"]
    ours = outputs["evaluation"][0].get_float_custom_property(f"{kind}_accuracy")
    assert stock == pytest.approx(ours, abs=1e-6 if kind == "float" else 0.05)


def test_evaluation_without_a_compiled_model_holds_gates_by_the_compiler_options(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    options = CompilerOptions(min_runtime_version=11)  # INT8 since runtime 12
    component = _component(channel, "macs_on_target >= 0.5", compiler_options=options)
    blessing = _evaluate(component, standard, trained, integer_model, tmp_path)["blessing"][0]
    assert blessing.get_int_custom_property("blessed") == 0
    failed = "fails: macs_on_target >= 0.5 (macs_on_target is 0, predicted by static analysis)"
    assert failed in json.loads(blessing.get_string_custom_property("reasons"))


@pytest.mark.parametrize(("compiled", "code"), [(1, "holds"), (0, "not_compiled")])
def test_evaluation_blesses_only_what_is_compiled_when_that_is_required(
    channel: Any,
    standard: Artifacts,
    trained: Artifacts,
    integer_model: types.Artifact,
    tmp_path: Path,
    compiled: int,
    code: str,
) -> None:
    gates = dataclasses.replace(Gates.of("accuracy >= 0.1", "macs_on_target >= 0.7"), require_compiled=True)
    with pytest.raises(ValueError, match="no compiled_model; connect TargetCompiler's output"):
        _component(channel, gates=gates)
    artifact = new_models(tmp_path, "compiled_model")["compiled_model"][0]
    artifact.set_int_custom_property("compiled", compiled)
    report = {
        "compiled": bool(compiled),
        "tool": "a compiler 1.0" if compiled else "static analysis",
        "on_target": {"ops": 3, "macs": 300},
        "on_cpu": {"ops": 1, "macs": 100},
        "first_breaking_op": {"op": "ELU"},
        "subgraphs": 1,
        "memory": {"streamed_bytes": None},
        "measurements": {},
        "problems": [],
    }
    serving = Path(artifact.uri) / "Format-Serving"
    serving.mkdir(parents=True)
    content = (Path(integer_model.uri) / "Format-Serving" / "tflite").read_bytes()
    pushed = content + bytes(16)
    (serving / "tflite").write_bytes(pushed)
    for name, of in (("sha256", pushed), ("parent_sha256", content)):
        artifact.set_string_custom_property(name, hashlib.sha256(of).hexdigest())
    (Path(artifact.uri) / "compile_report.json").write_text(json.dumps(report))
    component = _component(channel, gates=gates, compiled_model=_MODEL)
    outputs = _evaluate(component, standard, trained, integer_model, tmp_path, compiled_model=[artifact])
    blessing = outputs["blessing"][0]
    assert blessing.get_int_custom_property("blessed") == compiled
    basis = "by a compiler 1.0" if compiled else "predicted by static analysis"
    held = f"holds: macs_on_target >= 0.7 (macs_on_target is 0.75, {basis})"
    assert held in json.loads(blessing.get_string_custom_property("reasons"))
    assert outputs["evaluation"][0].get_float_custom_property("model_bytes") == len(pushed)
    assert code in blessing.get_string_custom_property("reason_codes").split(", ")


def test_executor_refuses_a_compiled_model_of_another_parent(
    channel: Any, standard: Artifacts, trained: Artifacts, integer_model: types.Artifact, tmp_path: Path
) -> None:
    compiled = new_models(tmp_path, "compiled_model")["compiled_model"][0]
    compiled.set_string_custom_property("parent_sha256", "b" * 64)
    inputs = {"compiled_model": [compiled], "model": [integer_model], "baseline_model": trained["float_model"]}
    outputs = new_models(tmp_path, "evaluation", "blessing")
    sha256 = hashlib.sha256((Path(integer_model.uri) / "Format-Serving" / "tflite").read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"made from the model bbbbbbbbbbbb, but {sha256[:12]} is evaluated"):
        quantized_evaluator.Executor().Do(inputs, outputs, _component(channel, "accuracy >= 0").exec_properties)
    compiled.set_string_custom_property("parent_sha256", sha256)
    compiled.set_string_custom_property("sha256", sha256)
    serving = Path(compiled.uri) / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "tflite").write_bytes(b"another")
    with pytest.raises(ValueError, match=f"its compiler made {sha256[:12]}"):
        quantized_evaluator.Executor().Do(inputs, outputs, _component(channel, "accuracy >= 0").exec_properties)


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (
            ("f1 >= 0.5",),
            "gates on metrics that are not computed: f1; there are accuracy, loss, agreement, example_count",
        ),
        (("accuracy[image=1] >= 0.5",), "no slices by image; there are label"),
        (("accuracy drop vs last_blessed <= 0.5",), "model 'last_blessed' is not evaluated"),
        (("accuracy of scores >= 0.5",), "no output 'scores'; there are one, which needs no name"),
    ],
)
def test_constructor_raises_when_the_gates_cannot_judge(channel: Any, gates: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _component(channel, *gates)


def test_constructor_raises_when_the_options_are_of_another_target(channel: Any) -> None:
    with pytest.raises(ValueError, match="not options of Vela"):
        _component(channel, "accuracy >= 0", target="ethos_u", compiler_options=CompilerOptions())
