import dataclasses
import datetime
import random
from typing import Any

import pytest

from components.evaluation.gate import Gate
from components.evaluation.gates import Gates, Measurable, Override
from components.evaluation.task import Task
from components.evaluation.task_metric import TaskMetric

_DAY = datetime.date(2026, 12, 31)


@pytest.mark.parametrize(
    "text",
    [
        "accuracy >= 0.97",
        "loss <= 2",
        "accuracy drop <= 0.01",
        "loss rise <= 0.5",
        "n >= 1234567",
        "accuracy >= 0.9999999",
        "accuracy[label=3] >= 0.9",
        "accuracy[label=*] drop <= 0.1",
        "accuracy[label=3, country=South Africa] >= 0.9",
        "accuracy of scores >= 0.9",
        "accuracy of scores[label=*] drop vs last_blessed <= 0.005",
        "accuracy drop vs fake_quant <= 0.001",
        "accuracy drop <= 0.01 at 95%",
        "accuracy drop vs last_blessed <= 0.01 at 99.5%",
        "agreement >= 0.99",
        "agreement vs last_blessed >= 0.9",
        "worse vs last_blessed <= 20",
        "ties <= 3",
        "ties rise <= 3",
        "calibration_error rise <= 0.02",
        "model_bytes <= 50000",
        "arena_bytes <= 16384",
        "macs_on_target >= 0.95",
        "latency_ms <= 5",
        "first_cpu_op in none, SOFTMAX",
    ],
)
def test_parse_reads_what_str_writes(text: str) -> None:
    gate = Gate.parse(text)
    assert str(gate) == text
    assert Gate.parse(str(gate)) == gate


def test_parse_reads_every_part_of_a_gate() -> None:
    gate = Gate.parse("accuracy of scores[label=3,country=*] drop vs last_blessed <= 0.25 at 90%")
    assert gate == Gate(
        metric="accuracy",
        kind="drop_at_most",
        bound=0.25,
        output="scores",
        slice=(("label", "3"), ("country", "*")),
        against="last_blessed",
        confidence=0.9,
    )
    assert Gate.parse("first_cpu_op in none SOFTMAX").choices == ("none", "SOFTMAX")


@pytest.mark.parametrize(
    "text",
    [
        *("", "accuracy", "accuracy > 0.9", "accuracy >= much", "loss drop >= 1", "a b c <= 1", "a >= nan", "a >= inf"),
        *("a[label] >= 1", "a[label=] >= 1", "a[] >= 1", "a of >= 1", "a vs >= 1", "a >= 1 at 95", "first_cpu_op in"),
    ],
)
def test_parse_raises_with_the_forms_there_are_when_the_text_is_no_gate(text: str) -> None:
    with pytest.raises(ValueError, match="not a gate: .*write 'metric >= x'"):
        Gate.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_bytes >= 1", "a worse model would keep it more easily, expected 'model_bytes <= x'"),
        ("macs_on_target <= 1", "expected 'macs_on_target >= x'"),
        ("macs_on_target >= 95", "no model keeps it: it is a share, of which 95 percent is 0.95"),
        ("streamed_bytes >= 1", "expected 'streamed_bytes <= x'"),
        ("target_subgraphs >= 1", "expected 'target_subgraphs <= x'"),
        ("agreement <= 1", "expected 'agreement >= x'"),
        ("agreement drop <= 1", "expected 'agreement >= x'"),
        ("worse >= 1", "expected 'worse <= x'"),
        ("ties drop <= 1", "expected 'ties <= x' or 'ties rise <= x'"),
        ("first_cpu_op >= 1", "expected 'first_cpu_op in none, OP'"),
        ("accuracy drop vs integer <= 1", "vs 'integer', expected one of float, fake_quant, last_blessed"),
        ("accuracy vs last_blessed >= 1", "'vs' without 'drop' or 'rise'"),
        ("model_bytes[label=3] <= 1", "it is of the whole file"),
        ("model_bytes of scores <= 1", "it is of the whole file"),
        ("a[label=3, label=4] >= 1", "a feature twice in one slice"),
        ("loss rise <= 0.1 at 95%", "a confidence is for 'accuracy drop' alone"),
        ("accuracy >= 0.1 at 95%", "a confidence is for 'accuracy drop' alone"),
        ("accuracy drop <= 0.1 at 40%", "got a confidence of 40 %, expected 50 or more and less than 100"),
        ("accuracy drop <= 0.1 at 100%", "got a confidence of 100 %"),
        ("accuracy drop <= 0.1 at 0%", "got a confidence of 0 %"),
        ("accuracy drop <= 0 at 95%", "the bound must lie between 0 and 1"),
        ("accuracy drop <= 1", "every model keeps it: accuracies are shares, of which one percent is 0.01"),
    ],
)
def test_parse_raises_when_a_gate_has_no_meaning(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Gate.parse(text)


def test_gate_raises_all_that_is_wrong_at_once() -> None:
    with pytest.raises(ValueError, match=r"vs 'parent'.*a confidence is for.*got a confidence of 20 %"):
        Gate(metric="loss", kind="rise_at_most", bound=0.1, against="parent", confidence=0.2)


@pytest.mark.parametrize("value", ["New York, country=US", "a]b", "a[b", " a", "a ", "a, b"])
def test_gate_raises_when_its_slice_could_not_be_read_back(value: str) -> None:
    with pytest.raises(ValueError, match="features and values of a slice cannot have ','"):
        Gate(metric="accuracy", kind="at_least", slice=(("city", value),))


@pytest.mark.parametrize("seed", range(20))
def test_parse_gives_back_every_gate_to_the_last_bit(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        value = "".join(rng.choices("abc=: \u00fc.-", k=rng.randrange(1, 9))).strip() or "x"
        bound = rng.uniform(1e-9, 1)
        confidence = rng.uniform(0.5, 0.9999)
        for gate in (
            Gate(metric="accuracy", kind="drop_at_most", bound=bound, slice=(("city", value),), confidence=confidence),
            Gate(metric="loss", kind="at_most", bound=-bound * 10 ** rng.randrange(-20, 20)),
        ):
            assert Gate.parse(str(gate)) == gate


def test_parse_needs_no_spaces() -> None:
    assert str(Gate.parse("accuracy drop<=.01")) == "accuracy drop <= 0.01"
    assert str(Gate.parse("backdrop<=1")) == "backdrop <= 1"
    assert str(Gate.parse("accuracy[label=3]drop<=.01 at 95 %")) == "accuracy[label=3] drop <= 0.01 at 95%"


@pytest.mark.parametrize(
    ("text", "examples"),
    # 1.95996^2 = 3.84146: 3.84146 / 384.84146 = 0.0099820 <= 0.01 < 3.84146 / 383.84146 = 0.0100080; 3.84146 / 7.84146.
    [("accuracy drop <= 0.01 at 95%", 381), ("accuracy drop <= 0.5 at 95%", 4), ("accuracy drop <= 0.01", 0)],
)
def test_needed_examples_are_those_without_a_flip_that_show_the_bound(text: str, examples: int) -> None:
    assert Gate.parse(text).needed_examples() == examples


@pytest.mark.parametrize(
    "texts",
    [
        ("a >= 1", "a >= 0"),
        ("a drop <= 1", "a rise <= 1"),
        ("a[x=1, y=2] >= 1", "a[y=2, x=1] >= 0"),
        ("agreement >= 1", "agreement >= 0"),
    ],
)
def test_gates_raise_when_two_bound_the_same(texts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="several gates of one kind on one figure"):
        Gates.of(*texts)


def test_gates_take_bounds_that_differ_in_slice_output_model_or_confidence() -> None:
    drop = "accuracy drop"
    texts = (f"{drop} <= 0.1", f"{drop} vs last_blessed <= 0.1", f"{drop} <= 0.2 at 95%", "accuracy[x=1] drop <= 0.1")
    gates = Gates.of(*texts, "accuracy of scores drop <= 0.1")
    assert gates.models == {"float", "last_blessed"}
    assert gates.metrics == {"accuracy"}
    assert gates.confidence == 0.95


def test_gates_raise_when_they_are_at_several_confidences() -> None:
    with pytest.raises(ValueError, match="gates at 90%, 95%; choose one confidence"):
        Gates.of("accuracy drop <= 0.1 at 90%", "accuracy[x=1] drop <= 0.1 at 95%")


def test_updated_replaces_the_gate_of_the_same_figure_and_kind_and_adds_others() -> None:
    gates = Gates.of("a >= 1", "a drop <= 1").updated(["a >= 2", "a[x=1] >= 3"])
    assert [str(gate) for gate in gates.bounds] == ["a >= 2", "a drop <= 1", "a[x=1] >= 3"]


def test_gates_read_the_json_that_they_write() -> None:
    override = Override(gate="accuracy >= 0.9", because="a demo on Friday", until=_DAY)
    gates = dataclasses.replace(
        Gates.of("accuracy >= 0.9", "first_cpu_op in none"),
        bless_ungated=True,
        overrides=(override,),
        require_compiled=True,
    )
    assert Gates.from_json(gates.to_json()) == gates
    assert Gates.from_json(Gates().to_json()) == Gates()


def test_override_names_a_gate_however_it_is_spaced() -> None:
    assert Override(gate="accuracy>=.90", because="x", until=_DAY).gate == "accuracy >= 0.9"


def test_gates_raise_when_an_override_is_of_no_gate() -> None:
    override = Override(gate="accuracy >= 0.8", because="x", until=_DAY)
    with pytest.raises(
        ValueError, match="override of 'accuracy >= 0.8', which is no gate .* there are: accuracy >= 0.9"
    ):
        dataclasses.replace(Gates.of("accuracy >= 0.9"), overrides=(override,))


def test_override_raises_without_a_reason() -> None:
    with pytest.raises(ValueError, match="no reason"):
        Override(gate="accuracy >= 0.8", because=" ", until=_DAY)


def test_before_evaluation_keeps_what_a_training_loop_can_measure() -> None:
    gates = Gates.of(
        *("loss <= 2", "accuracy drop <= 0.02", "accuracy drop <= 0.03 at 95%", "accuracy[label=3] >= 0.9"),
        *("accuracy drop vs last_blessed <= 0.01", "model_bytes <= 1000", "worse <= 2", "agreement >= 0.9"),
    )
    kept = [str(gate) for gate in gates.before_evaluation().bounds]
    assert kept == ["loss <= 2", "accuracy drop <= 0.02", "agreement >= 0.9"]
    alone = Gates.of("accuracy drop <= 0.03 at 95%").before_evaluation()
    assert alone == Gates.of("accuracy drop <= 0.03")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b >= 1", "not computed: b; there are a, agreement, example_count, model_bytes"),
        ("latency_ms <= 1", "not computed: latency_ms"),
        ("worse <= 1", "not computed: worse"),
        ("a[label=3] >= 1", "no slices by label; there are country, country and city"),
        ("a[city=Rome] >= 1", "no slices by city"),
        ("a of scores >= 1", "no output 'scores'; there are one, which needs no name"),
        ("a drop vs last_blessed <= 1", "model 'last_blessed' is not evaluated; there are float"),
        ("agreement vs last_blessed >= 1", "agreement with last_blessed is not measured"),
        ("accuracy drop <= 0.1 at 95%", "confidence intervals are not measured"),
    ],
)
def test_require_raises_when_a_gate_is_on_what_is_not_measured(text: str, message: str) -> None:
    measurable = Measurable(metrics=("a",), slices=(("country",), ("country", "city")), facts=("model_bytes",))
    with pytest.raises(ValueError, match=message):
        measurable.require(Gates.of(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy <= 0.9", "a worse model would keep it more easily, as SparseCategoricalAccuracy goes"),
        ("accuracy rise <= 0.1", "a worse model would keep it more easily"),
        (
            "loss >= 0.1",
            "a worse model would keep it more easily, as tf_keras.losses.SparseCategoricalCrossentropy goes",
        ),
        ("loss drop <= 0.1", "a worse model would keep it more easily"),
        ("auc_class_1 <= 0.9", "a worse model would keep it more easily, as AUC goes"),
        ("missed >= 0.1", "a worse model would keep it more easily, as FNR goes"),
        ("mcc <= 0.9", "a worse model would keep it more easily, as MatthewsCorrelationCoefficient goes"),
        ("cosine_loss >= -0.9", "a worse model would keep it more easily, as tf_keras.losses.CosineSimilarity goes"),
        ("cosine <= 0.9", "a worse model would keep it more easily, as CosineSimilarity goes"),
    ],
)
def test_task_raises_when_a_worse_model_would_keep_a_gate_more_easily(text: str, message: str) -> None:
    metrics = {
        "accuracy": "SparseCategoricalAccuracy",
        "loss": "tf_keras.losses.SparseCategoricalCrossentropy",
        "auc": TaskMetric(class_name="AUC", class_ids=(1,)),
        "missed": "FNR",
        "mcc": "MatthewsCorrelationCoefficient",
        "cosine": "CosineSimilarity",  # of Keras as a metric, whose best is 1
        "cosine_loss": "tf_keras.losses.CosineSimilarity",  # whose best is -1
        "mine": "my.module.Score",
        "wrong": "my.module.Inaccuracy",
    }
    task = Task(label_key="label", metrics=metrics)
    with pytest.raises(ValueError, match=message):
        task.require(Gates.of(text))
    task.require(Gates.of("accuracy drop <= 0.1", "loss <= 1", "auc_class_1 >= 0.5", "mine <= 3", "mine drop <= 1"))
    task.require(Gates.of("wrong <= 0.1", "cosine_loss <= -0.9", "cosine >= 0.9"))


@pytest.mark.parametrize(
    "metric",
    [
        "SparseTopKCategoricalAccuracy",
        "BalancedAccuracy",
        "Accuracy",
        "my.module.BinaryAccuracy",
        TaskMetric(class_name="BinaryAccuracy", config={"threshold": 0.3}),
    ],
)
def test_task_raises_when_the_interval_is_not_one_of_the_metric(metric: str | TaskMetric) -> None:
    task = Task(label_key="label", metrics={"accuracy": metric})
    name = TaskMetric.of(metric).class_name
    with pytest.raises(ValueError, match=f"its interval is that of right decisions, which {name} is not"):
        task.require(Gates.of("accuracy drop <= 0.1 at 95%"))


@pytest.mark.parametrize("metric", ["BinaryAccuracy", "tf_keras.metrics.SparseCategoricalAccuracy"])
def test_task_takes_an_interval_of_the_accuracies_of_decisions(metric: str) -> None:
    Task(label_key="label", metrics={"accuracy": metric}).require(Gates.of("accuracy drop <= 0.1 at 95%"))


@pytest.mark.parametrize(
    ("class_name", "kind", "message"),
    [
        ("CategoricalAccuracy", "labels", "does not count decisions on label_kind='labels'; use BinaryAccuracy"),
        ("tf_keras.metrics.SparseCategoricalAccuracy", "labels", "use BinaryAccuracy"),
        ("BinaryAccuracy", "values", "label_kind='values'; use a metric of values"),
        ("SparseCategoricalAccuracy", {"scores": "values"}, "metric accuracy of scores: .*as in 'OUTPUT/accuracy'"),
    ],
)
def test_task_raises_when_an_accuracy_does_not_count_decisions_on_such_labels(
    class_name: str, kind: Any, message: str
) -> None:
    key: Any = "label" if isinstance(kind, str) else {"scores": "label"}
    with pytest.raises(ValueError, match=message):
        Task(label_key=key, metrics={"accuracy": class_name}, label_kind=kind).require(Gates())


@pytest.mark.parametrize(
    ("class_name", "kind"),
    [
        ("BinaryAccuracy", "labels"),
        ("BinaryAccuracy", "classes"),
        ("CategoricalAccuracy", "classes"),
        ("AUC", "labels"),
    ],
)
def test_task_takes_a_metric_of_such_labels(class_name: str, kind: str) -> None:
    Task(label_key="label", metrics={"accuracy": class_name}, label_kind=kind).require(Gates())


def test_task_raises_when_a_gate_is_on_a_metric_of_another_output() -> None:
    task = Task(
        label_key={"kind": "kind", "tags": "tags"},
        metrics={"kind/accuracy": "SparseCategoricalAccuracy", "tags/auc": "AUC"},
    )
    with pytest.raises(ValueError, match="gate 'accuracy of tags >= 0.5': accuracy is computed of kind alone"):
        task.require(Gates.of("accuracy of tags >= 0.5"))
    task.require(Gates.of("accuracy of kind >= 0.5", "auc of tags >= 0.5", "agreement of tags >= 0.5"))


@pytest.mark.parametrize("kind", ["class", {"scores": "classes"}])
def test_task_raises_when_a_kind_of_labels_is_none_or_of_no_output(kind: Any) -> None:
    task = Task(label_key="label", metrics={"accuracy": "SparseCategoricalAccuracy"}, label_kind=kind)
    with pytest.raises(ValueError, match="label_kind: got '.*', expected one of classes, labels, values"):
        task.require(Gates.of("accuracy >= 0"))


def test_require_takes_gates_on_all_that_is_measured() -> None:
    measurable = Measurable(
        metrics=("accuracy",),
        slices=(("country", "city"),),
        models=("float", "last_blessed"),
        outputs=None,
        paired=True,
        facts=("model_bytes", "latency_ms"),
    )
    texts = ("accuracy of x[city=Rome, country=*] drop vs last_blessed <= 0.1 at 95%", "latency_ms <= 1", "worse <= 1")
    measurable.require(Gates.of(*texts))
    measurable.require(Gates())
    assert dataclasses.replace(measurable, outputs=("x",)).require(Gates.of(texts[0])) is None


def test_require_raises_when_a_metric_has_the_name_of_another_figure() -> None:
    with pytest.raises(ValueError, match="metrics named agreement, ties: these are names of other figures"):
        Measurable(metrics=("a", "agreement", "ties")).require(Gates.of("a >= 1"))


def test_require_current_raises_only_after_the_last_day_of_an_override() -> None:
    override = Override(gate="a >= 1", because="x", until=_DAY)
    gates = dataclasses.replace(Gates.of("a >= 1"), overrides=(override,))
    gates.require_current(_DAY)
    with pytest.raises(ValueError, match="override of 'a >= 1' expired on 2026-12-31; remove or renew it"):
        gates.require_current(_DAY + datetime.timedelta(days=1))
