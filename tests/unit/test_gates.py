import pytest

from components.evaluation.gates import Gate


@pytest.mark.parametrize("text", ["accuracy >= 0.97", "loss <= 2", "accuracy drop <= 0.01", "loss rise <= 0.5"])
def test_parse_reads_what_str_writes(text: str) -> None:
    assert str(Gate.parse(text)) == text


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy > 0.9", "accuracy >= much", "loss drop >= 1", "a b c <= 1"])
def test_parse_raises_with_the_forms_there_are_when_the_text_is_no_gate(text: str) -> None:
    with pytest.raises(ValueError, match="not a gate: .*write 'metric >= x'"):
        Gate.parse(text)


def test_reason_shows_the_float_value_only_when_the_gate_is_relative() -> None:
    assert Gate.parse("accuracy >= 0.97").reason(0.98, 0.99) == "accuracy >= 0.97 (accuracy is 0.9800)"
    relative = Gate.parse("accuracy drop <= 0.01")
    assert relative.is_relative
    assert relative.reason(0.98, 0.99) == "accuracy drop <= 0.01 (accuracy is 0.9800, float 0.9900)"
