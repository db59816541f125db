"""The table of supported layers in README.md, and the golden that it is made from."""

import json
import re
from pathlib import Path

import pytest

from infra.support_table import with_table

import layer_cases
import layer_cases_graphs
import layer_cases_keras3
from layer_support import GOLDEN

_README = Path(__file__).parents[2] / "README.md"
_MARKERS = "<!-- support table: begin -->\n<!-- support table: end -->"


def test_readme_has_the_table_of_the_golden() -> None:
    text = _README.read_text()
    assert text == with_table(text, json.loads(GOLDEN.read_text())), "run python -m infra.support_table"


def test_golden_has_exactly_the_cases_that_are_tested() -> None:
    cases: dict[tuple[str, str], set[str]] = {}
    for version, module in (("2", layer_cases), ("2", layer_cases_graphs), ("3", layer_cases_keras3)):
        for row, group in module.GROUPS.items():
            cases.setdefault((row, f"Keras {version}"), set()).update(group.cases)
    golden = json.loads(GOLDEN.read_text())
    assert {(row, version): set(golden[row][version]) for row in golden for version in golden[row]} == cases


def test_with_table_tells_apart_what_is_trained_calibrated_and_refused() -> None:
    exact, far = {"verdict": "trained", "max_lsb": 0}, {"verdict": "calibrated", "max_lsb": None}
    golden = {
        "C": {"Keras 2": {"c": {"verdict": "refused: no op", "max_lsb": 0}}},
        "B": {"Keras 2": {"b": exact}, "Keras 3": {"other b": far}},
        "A": {"Keras 2": {"a": exact}},
    }
    assert with_table(_MARKERS, golden).splitlines()[3:-1] == [
        "| A | 2 | 1 | trained | equal |",
        "| B | 2, 3 | 2 | calibrated (other b); trained (b) | > 64 |",
        "| C | 2 | 1 | refused: no op | - |",
    ]


@pytest.mark.parametrize("text", ["", "<!-- support table: end --><!-- support table: begin -->", _MARKERS * 2])
def test_with_table_raises_when_the_markers_are_not_there_once(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("expected <!-- support table: begin -->")):
        with_table(text, {})
