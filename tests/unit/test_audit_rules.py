"""The page of all rules of the audit."""

import pytest

from components.quantization.conversion.audit import rule_rows
from infra import audit_rules


def test_page_is_that_of_the_rules() -> None:
    assert audit_rules.PAGE.read_text() == audit_rules.page(rule_rows()), "run python -m infra.audit_rules"


def test_every_rule_has_an_id_of_its_own_and_one_sentence() -> None:
    rows = rule_rows()
    assert len({name for name, *_ in rows}) == len(rows)
    for name, _, text, fix in rows:
        assert (text[0].isupper(), text[-1]) == (True, "."), name
        assert fix.rstrip(".") == fix != "", name


def test_page_has_rules_by_kind_in_their_order() -> None:
    rows = (("b", "note", "B.", "x"), ("c", "integer", "C.", "y"), ("a", "integer", "A.", "z"))
    lines = [line for line in audit_rules.page(rows).splitlines() if line.startswith(("| `", "## "))]
    assert lines == [
        "## Nothing computes in floats",
        "| `c` | C. | y |",
        "| `a` | A. | z |",
        "## Notes: what breaks no rule and is worth to know",
        "| `b` | B. | x |",
    ]


def test_page_raises_when_a_kind_has_no_heading() -> None:
    with pytest.raises(ValueError, match="rules of kind new: expected one of integer"):
        audit_rules.page((("a", "new", "A.", "x"),))
