"""What loops, branches and nests, and layers of Keras 3: as in test_layer_cases."""

import pytest

import layer_cases_graphs
import layer_cases_keras3
from layer_cases import Group
from layer_support import check, parameters

_CASES = [*parameters(layer_cases_graphs.GROUPS), *parameters(layer_cases_keras3.GROUPS, "Keras 3 ")]


@pytest.mark.long
@pytest.mark.parametrize(("row", "group", "case"), _CASES)
def test_model_becomes_integers_as_the_golden_says(
    row: str, group: Group, case: str, request: pytest.FixtureRequest
) -> None:
    check(row, group, case, update=request.config.getoption("--update-goldens"))
