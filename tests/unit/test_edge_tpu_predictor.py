"""The Edge TPU predictor against compiled models in public, which are beside the repository."""

import functools
import math
from pathlib import Path

import pytest

from components.targets.edge_tpu.limits import LIMITS
from infra.bench import edge_tpu_predictor as bench
from infra.bench.edge_tpu_predictor import Case, Point

_read_once = functools.cache(bench.read_cases)


@pytest.fixture
def cases(shared: Path) -> list[Case]:
    return _read_once(shared / "edgetpu")


@pytest.mark.slow
def test_predict_places_every_op_and_gives_every_status_as_the_compiler_did(cases: list[Case]) -> None:
    score = bench.score(cases, LIMITS)
    assert score.pairs == (243, 243)
    assert score.ops[0] == score.ops[1]
    assert score.status_rows[1] > 900
    assert score.status_rows[0] >= 0.95 * score.status_rows[1]


@pytest.mark.slow
def test_limits_agree_with_every_size_that_models_show(cases: list[Case]) -> None:
    limits = {limit.name: limit for limit in LIMITS}
    points = list(bench.evidence(cases))
    assert len(points) > 2000
    for point in points:
        limit = limits[point.limit]
        # What is refused at a size that maps elsewhere is refused by another limit of the same op.
        assert point.size <= limit.mapped or (not point.mapped and point.size >= limit.refused), point


@pytest.mark.slow
def test_parameter_memory_is_within_2_percent_of_what_the_compiler_says(cases: list[Case]) -> None:
    found = bench.memory(cases)
    assert found["sums"][1] > 60
    assert found["sums"][0] / found["sums"][1] > 0.95
    assert found["sure"][0] / found["sure"][1] > 0.93


def _point(family: str, size: int, mapped: bool) -> Point:
    return Point(family=family, limit="transposed-elements", size=size, mapped=mapped)


def test_derived_takes_the_middle_of_what_the_other_families_show() -> None:
    points = [_point("a", 100, True), _point("b", 400, False), _point("b", 300, True), _point("c", 900, False)]
    found = {without: bench.derived(points, without)[0] for without in "abc"}
    assert LIMITS[0].name == "transposed-elements"
    assert (found["a"].mapped, found["a"].refused, found["a"].value) == (300, 400, math.sqrt(120_000))
    assert (found["b"].mapped, found["b"].refused, found["b"].value) == (100, 900, 300)


def test_derived_has_no_limit_when_the_other_families_show_none_refused() -> None:
    limit = bench.derived([_point("a", 100, True), _point("b", 400, False)], "b")[0]
    assert limit.value == math.inf
