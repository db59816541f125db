import json

import pytest

from components.quantization.qat.parameters import TrainingParameters
from components.quantization.schemes import QuantizationScheme


def test_updated_converts_values_to_the_type_of_the_parameter() -> None:
    updated = TrainingParameters().updated({"qat_epochs": 7.0, "float_learning_rate": 1})
    assert (updated.qat_epochs, type(updated.qat_epochs)) == (7, int)
    assert updated.float_learning_rate == 1.0


def test_updated_raises_when_a_name_is_no_parameter() -> None:
    with pytest.raises(ValueError, match="no training parameters: depth; there are strategy, "):
        TrainingParameters().updated({"depth": 3})


def test_parameters_name_every_value_that_is_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"batch_size=0 .*seed=-1 .*qat_learning_rate=nan"):
        TrainingParameters(batch_size=0, seed=-1, qat_learning_rate=float("nan"))


def test_parameters_refuse_a_ladder_that_workers_would_climb_each_on_its_own() -> None:
    with pytest.raises(ValueError, match=r"strategy='auto' with distribution='multi_worker_mirrored' \('none' or"):
        TrainingParameters(strategy="auto", distribution="multi_worker_mirrored")


def test_to_json_is_canonical() -> None:
    text = TrainingParameters(seed=4).to_json()
    assert TrainingParameters(**json.loads(text)) == TrainingParameters(seed=4)
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": "x", "bits": 3}'])
def test_scheme_from_json_raises_when_the_text_is_no_scheme(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantization scheme"):
        QuantizationScheme.from_json(text)
