"""Layers of Keras 2, one at a time: planned, trained, converted to integers and compared, as the support table says."""

import pytest

from layer_cases import GROUPS, Group
from layer_support import check, parameters


@pytest.mark.long
@pytest.mark.parametrize(("row", "group", "case"), parameters(GROUPS))
def test_layer_becomes_integers_as_the_golden_says(
    row: str, group: Group, case: str, request: pytest.FixtureRequest
) -> None:
    check(row, group, case, update=request.config.getoption("--update-goldens"))
