"""The pages of what targets support, and the rules that they are made of."""

from pathlib import Path
from typing import Any

import pytest

from components.targets import target_names
from components.targets.cpu import xnnpack
from components.targets.ethos_u import rules as ethos_u
from components.targets.nnapi import rules as nnapi
from components.targets.tflm import rules as tflm
from infra import target_support


def test_every_target_has_a_page() -> None:
    assert {path.parent.name for path in target_support.pages()} == set(target_names())


@pytest.mark.parametrize("path", target_support.pages())
def test_page_is_that_of_the_rules(path: Path) -> None:
    assert path.read_text() == target_support.pages()[path], "run python -m infra.target_support"


@pytest.mark.parametrize("module", [xnnpack, ethos_u, nnapi, tflm])
def test_every_rule_has_a_name_of_its_own_and_one_sentence(module: Any) -> None:
    names = [rule.name for rule in module.RULES]
    assert len(set(names)) == len(names)
    for rule in module.RULES:
        assert (rule.text[0].isupper(), rule.text[-1], rule.text.count(". ")) == (True, ".", 0), rule.text


@pytest.mark.parametrize("module", [nnapi, tflm])
def test_every_status_has_an_edit_or_is_a_limit_of_values(module: Any) -> None:
    statuses = {rule.status for rule in module.RULES} - {"kUnsupportedOperandValue"}
    assert all(module.edit("ADD", status) for status in statuses)
