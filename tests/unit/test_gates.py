import pytest

from components.evaluation.gates import Gate, require_gates


@pytest.mark.parametrize(
    "text",
    [
        "accuracy >= 0.97",
        "loss <= 2",
        "accuracy drop <= 0.01",
        "loss rise <= 0.5",
        "n >= 1234567",
        "accuracy >= 0.9999999",
    ],
)
def test_parse_reads_what_str_writes(text: str) -> None:
    assert str(Gate.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "accuracy", "accuracy > 0.9", "accuracy >= much", "loss drop >= 1", "a b c <= 1", "a >= nan", "a >= inf"],
)
def test_parse_raises_with_the_forms_there_are_when_the_text_is_no_gate(text: str) -> None:
    with pytest.raises(ValueError, match="not a gate: .*write 'metric >= x'"):
        Gate.parse(text)


def test_reason_shows_the_float_value_only_when_the_gate_is_relative() -> None:
    assert Gate.parse("accuracy >= 0.97").reason(0.98, 0.99) == "accuracy >= 0.97 (accuracy is 0.9800)"
    relative = Gate.parse("accuracy drop <= 0.01")
    assert relative.is_relative
    assert relative.reason(0.98, 0.99) == "accuracy drop <= 0.01 (accuracy is 0.9800, float 0.9900)"


def test_parse_needs_no_spaces() -> None:
    assert str(Gate.parse("accuracy drop<=.01")) == "accuracy drop <= 0.01"
    assert str(Gate.parse("backdrop<=1")) == "backdrop <= 1"


@pytest.mark.parametrize(
    ("text", "value", "parent", "holds"),
    [
        ("a >= 0.5", 0.5, 0.9, True),
        ("a >= 0.5", 0.49, 0.9, False),
        ("a <= 0.5", 0.5, 0.9, True),
        ("a <= 0.5", 0.51, 0.9, False),
        ("a drop <= 0.25", 0.5, 0.75, True),
        ("a drop <= 0.25", 0.25, 0.75, False),
        ("a rise <= 0.25", 0.75, 0.5, True),
        ("a rise <= 0.25", 1.0, 0.5, False),
        ("a >= 0", float("nan"), 0.5, False),
        ("a <= 1", float("nan"), 0.5, False),
        ("a drop <= 1", 0.5, float("nan"), False),
    ],
)
def test_holds_only_within_the_bound_and_never_for_nan(text: str, value: float, parent: float, holds: bool) -> None:
    assert Gate.parse(text).holds(value, parent) == holds


@pytest.mark.parametrize(
    ("texts", "metrics", "message"),
    [
        ([], ["a"], "no gates: a model without a bound"),
        (["b >= 1"], ["a"], "not computed: b; there are a, agreement, example_count"),
        (["a >= 1", "a >= 0"], ["a"], "several gates of one kind on a; "),
        (["a drop <= 1", "a rise <= 1"], ["a"], "several gates of one kind on a; "),
        (["a >= 1"], ["a", "agreement"], "metrics named agreement: these are always computed"),
    ],
)
def test_require_gates_raises_when_a_gate_could_not_be_judged(
    texts: list[str], metrics: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        require_gates([Gate.parse(text) for text in texts], metrics)
