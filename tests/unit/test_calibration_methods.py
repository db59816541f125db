"""Ranges from histograms, by hand, and the choice between methods."""

import math

import numpy as np
import pytest

from components.quantization.conversion.calibration import Choice, MethodScore, choose, load_method
from components.quantization.conversion.calibration.histogram import BINS, Histogram


def _histogram(lower: float, upper: float, counts: list[int], zeros: int = 0) -> Histogram:
    return Histogram(lower=lower, upper=upper, counts=np.array(counts, np.int64), zeros=zeros)


def test_histogram_counts_values_when_they_lie_outside_or_on_edges() -> None:
    histogram = _histogram(-1.0, 3.0, [0, 0, 0, 0])
    histogram.add(np.array([[-5.0, -1.0], [0.0, 1.0], [3.0, 7.0]], np.float32))
    assert histogram.counts.tolist() == [2, 1, 1, 2]
    assert (histogram.zeros, histogram.total) == (1, 6)
    assert histogram.edges.tolist() == [-1, 0, 1, 2, 3]


def test_histogram_takes_bounded_memory_when_values_are_many() -> None:
    histogram = Histogram(lower=0.0, upper=1.0)
    for _ in range(3):
        histogram.add(np.linspace(0, 1, 100_000, dtype=np.float32))
    assert histogram.counts.nbytes == 8 * BINS
    assert histogram.total == 300_000


@pytest.mark.parametrize(
    ("percentile", "expected"),
    [
        # 100 values in bins of width 1 from -4: 1, 4, 20, 50, 20, 4, 1. 99 of them lie below 2, and above -3 ...
        ("99", (-3.0, 2.0)),
        ("99.5", (-4.0, 3.0)),  # ... 99.5 of 100 values are all of them
        ("95", (-2.0, 1.0)),  # 1 + 4 + 20 + 50 + 20 = 95
        ("90", (-2.0, 1.0)),
        ("75", (-1.0, 0.0)),  # 75 lie below 0
    ],
)
def test_percentile_range_ends_at_bins_when_enough_values_lie_within(
    percentile: str, expected: tuple[float, float]
) -> None:
    histogram = _histogram(-4.0, 3.0, [1, 4, 20, 50, 20, 4, 1])
    lower, upper = load_method(f"percentile_{percentile}").range_of(histogram)
    # Where it ends at 0.0, 1/64 of the widest end is left.
    assert (lower, upper) == (expected[0], expected[1] or 3.0 / 64)


def test_percentile_range_contains_zero_when_all_values_are_positive() -> None:
    assert load_method("percentile_60").range_of(_histogram(2.0, 6.0, [1, 1, 1, 1])) == (0.0, 5.0)


def test_percentile_range_keeps_a_share_when_nearly_all_values_are_zero() -> None:
    histogram = _histogram(0.0, 1000.0, [9999] + [0] * 998 + [1])
    assert load_method("percentile_99").range_of(histogram) == (0.0, 1000.0 / 64)


@pytest.mark.parametrize("method", ["percentile_99", "mse"])
def test_range_ends_where_values_end_when_limits_are_wider(method: str) -> None:
    assert load_method(method).range_of(_histogram(-4.0, 4.0, [0, 0, 0, 5, 5, 0, 0, 0])) == (-1.0, 1.0)


def test_mse_range_is_the_widest_when_values_fill_it() -> None:
    assert load_method("mse").range_of(_histogram(-2.0, 2.0, [5, 5, 5, 5])) == (-2.0, 2.0)


def test_mse_range_clips_when_one_of_a_million_values_is_far_out() -> None:
    # n values up to 1 and one of 100: a range up to u costs n * (u / 255)² / 12 by rounding, (100 - u)² by clipping.
    # The sum is least at u = 100 / (1 + n / 780,300) = 43.8 with n = 10**6; of 100 * 2**(-k / 16), k = 19 is next.
    histogram = _histogram(0.0, 100.0, [10**6] + [0] * 98 + [1])
    lower, upper = load_method("mse").range_of(histogram)
    assert lower == 0.0
    assert upper == pytest.approx(100 * 2 ** (-19 / 16))


def test_mse_range_keeps_the_far_value_when_the_others_are_exact_zeros() -> None:
    histogram = _histogram(0.0, 100.0, [10**6] + [0] * 98 + [1], zeros=10**6)
    assert load_method("mse").range_of(histogram) == (0.0, pytest.approx(100, rel=0.01))


def test_mse_range_is_as_good_as_any_when_values_are_quantized() -> None:
    random = np.random.default_rng(0)
    values = np.append(random.laplace(size=300_000), [60.0, -30.0])

    def error(lower: float, upper: float) -> float:
        step = (upper - lower) / 255
        zero = round(-lower / step)
        codes = np.clip(np.rint(values / step) + zero, 0, 255)
        return float(np.square((codes - zero) * step - values).mean())

    histogram = Histogram(lower=-30.0, upper=60.0)
    histogram.add(values)
    found = error(*load_method("mse").range_of(histogram))
    tried = [error(lower, upper) for lower in -np.geomspace(1, 30, 25) for upper in np.geomspace(1, 60, 25)]
    assert found < 1.02 * min(tried)
    assert found < 0.65 * error(-30.0, 60.0)


@pytest.mark.parametrize("name", ["minmax", "percentile", "percentile_", "percentile_50", "percentile_100", "99.9", ""])
def test_load_method_refuses_when_there_is_none_of_that_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected min_max, mse or percentile_P"):
        load_method(name)


def _choose(scores: dict[str, float], tolerance: float = 0.0) -> Choice:
    return choose(list(scores), str.encode, lambda tflite: scores[tflite.decode()], tolerance)


@pytest.mark.parametrize(
    ("scores", "tolerance", "best"),
    [
        ({"min_max": 0.5, "mse": 0.6, "percentile_99": 0.7}, 0.0, "percentile_99"),
        ({"mse": 0.7, "min_max": 0.7}, 0.0, "min_max"),
        ({"mse": 0.7, "percentile_99": 0.7}, 0.0, "mse"),
        ({"min_max": 0.5, "mse": 0.6}, 0.2, "min_max"),
        ({"min_max": 0.5, "mse": 0.6, "percentile_99": 0.61}, 0.05, "percentile_99"),
        ({"mse": -5.0}, 1.0, "mse"),
        ({"min_max": math.nan, "mse": -math.inf}, 0.0, "mse"),
    ],
)
def test_choose_takes_the_best_when_scores_differ(scores: dict[str, float], tolerance: float, best: str) -> None:
    choice = _choose(scores, tolerance)
    assert (choice.method, choice.tflite) == (best, best.encode())
    assert [found.method for found in choice.scores] == list(scores)


def test_choose_records_the_reason_when_a_conversion_fails() -> None:
    def make(method: str) -> bytes:
        if method == "min_max":
            raise ValueError("the converter\n  refuses it")
        return method.encode()

    choice = choose(["min_max", "mse"], make, len)
    assert choice.scores == (
        MethodScore(method="min_max", score=None, error="the converter refuses it"),
        MethodScore(method="mse", score=3.0),
    )


def test_choose_raises_all_reasons_when_every_conversion_fails() -> None:
    def make(method: str) -> bytes:
        raise RuntimeError(f"no {method}")

    with pytest.raises(ValueError, match="min_max: no min_max; mse: no mse"):
        choose(["min_max", "mse"], make, len)


@pytest.mark.parametrize(
    ("methods", "tolerance", "problem"),
    [
        ([], 0.0, "at least one"),
        (["mse", "mse"], 0.0, "each once"),
        (["best"], 0.0, "got 'best'"),
        (["mse"], -1.0, "tolerance: got -1.0"),
        (["mse"], math.nan, "tolerance: got nan"),
    ],
)
def test_choose_refuses_when_an_argument_is_wrong(methods: list[str], tolerance: float, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        choose(methods, str.encode, len, tolerance)
