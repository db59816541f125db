"""The page of what maps to the Edge TPU."""

from components.targets.edge_tpu.limits import LIMITS
from components.targets.edge_tpu.rules import RULES
from infra import edge_tpu_support


def test_page_is_that_of_the_rules() -> None:
    assert edge_tpu_support.PAGE.read_text() == edge_tpu_support.page(), "run python -m infra.target_support"


def test_every_rule_has_a_name_of_its_own_and_one_sentence() -> None:
    names = [rule.name for rule in RULES] + [limit.name for limit in LIMITS]
    assert len(set(names)) == len(names)
    for text in [rule.text for rule in RULES] + [limit.sentence for limit in LIMITS]:
        assert (text[0].isupper(), text[-1], "\n" in text) == (True, ".", False), text


def test_every_limit_lies_where_nothing_is_known() -> None:
    for limit in LIMITS:
        assert limit.mapped <= limit.value < limit.refused, limit.name
