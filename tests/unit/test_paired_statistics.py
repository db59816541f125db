import math
import pickle
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import binom

from components.evaluation.accuracy_check import accuracy_question
from components.evaluation.decisions import decide, decisions_of_labels
from components.evaluation.degenerate import OutputSums
from components.evaluation.gate import Gate
from components.evaluation.input_ranges import InputRange, InputSums
from components.evaluation.intervals import score_low
from components.evaluation.label_clues import LabelClues
from components.evaluation.paired_statistics import Examples, PairedSums, mcnemar
from components.evaluation.proportion import Proportion

_COUNT = 10_000


def _examples(weighted: bool = False) -> Examples:
    """Two classifiers of ten classes that differ a little, whose scores have few digits so that some are tied."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 10, (_COUNT, 1))
    other = random.random((_COUNT, 10))
    other[np.arange(_COUNT), labels[:, 0]] += 0.6
    other /= other.sum(axis=1, keepdims=True)
    scores = np.round(np.clip(other + random.normal(0, 0.02, other.shape), 0, 1) * 256) / 256
    weights = random.uniform(0, 3, _COUNT) if weighted else np.ones(_COUNT)
    return Examples(labels=labels, scores=scores.astype(np.float32), other_scores=other, weights=weights)


def _calibration_error(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    error = 0.0
    for low in range(15):
        inside = np.floor(np.minimum(confidence * 15, 14)) == low
        if inside.any():
            gap = np.average(right[inside], weights=weights[inside]) - np.average(
                confidence[inside], weights=weights[inside]
            )
            error += abs(gap) * weights[inside].sum() / weights.sum()
    return error


@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_parts_equal_a_plain_computation_over_all_examples_and_over_each_slice(weighted: bool) -> None:
    examples = _examples(weighted)
    slices = np.random.default_rng(2).integers(0, 4, _COUNT)
    for chosen in (np.arange(_COUNT), *(np.flatnonzero(slices == value) for value in range(4))):
        parts = np.array_split(np.random.default_rng(3).permutation(chosen), 37)
        paired = reduce(add, [PairedSums.of(examples.rows(part)) for part in parts]).paired()
        labels, weights = examples.labels[chosen, 0], examples.weights[chosen]
        ours, theirs = examples.scores[chosen], examples.other_scores[chosen]
        right, other_right = ours.argmax(1) == labels, theirs.argmax(1) == labels
        assert paired.examples == len(chosen)
        assert paired.agreement == pytest.approx(
            np.average(ours.argmax(1) == theirs.argmax(1), weights=weights), abs=1e-9
        )
        assert paired.better == np.sum(right & ~other_right)
        assert paired.worse == np.sum(~right & other_right)
        difference = np.average(right, weights=weights) - np.average(other_right, weights=weights)
        assert paired.difference == pytest.approx(difference, abs=1e-9)
        assert paired.ties == np.sum(np.sort(ours, axis=1)[:, -1] == np.sort(ours, axis=1)[:, -2]) > 0
        assert paired.other_ties == 0
        assert paired.calibration_error == pytest.approx(_calibration_error(ours, labels, weights), abs=1e-9)
        assert paired.other_calibration_error == pytest.approx(_calibration_error(theirs, labels, weights), abs=1e-9)
        assert paired.mcnemar_p == mcnemar(paired.better, paired.worse)


@pytest.mark.parametrize("weighted", [False, True])
def test_accuracies_are_the_weighted_shares_of_right_classes(weighted: bool) -> None:
    examples = _examples(weighted)
    ours, other = PairedSums.of(examples).accuracies(0.9)
    for found, scores in ((ours, examples.scores), (other, examples.other_scores)):
        right = scores.argmax(axis=1) == examples.labels[:, 0]
        assert found.value == pytest.approx(np.average(right, weights=examples.weights))
        assert found.low < found.value < found.high
    # Weights of 0..3 have half the largest as their mean: half the examples, wider intervals.
    width = 2 * 1.6449 * math.sqrt(ours.value * (1 - ours.value) / (_COUNT * (0.5 if weighted else 1)))
    assert ours.high - ours.low == pytest.approx(width, rel=0.02)


@pytest.mark.parametrize(
    ("right", "examples", "low", "high"),
    # Newcombe (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_proportion_has_the_published_interval(right: int, examples: int, low: float, high: float) -> None:
    found = Proportion.of(right / examples, examples, 0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_proportion_is_not_a_number_when_there_is_nothing_to_count() -> None:
    assert math.isnan(Proportion.of(0.5, 0.0, 0.95).low)
    assert math.isnan(Proportion.of(math.nan, 9.0, 0.95).high)


@pytest.mark.parametrize("weighted", [False, True])
def test_interval_is_that_of_a_bootstrap_that_draws_every_example_and_wider_when_weighted(weighted: bool) -> None:
    examples = _examples(weighted)
    paired = PairedSums.of(examples).paired()
    labels = examples.labels[:, 0]
    # With thousands of examples and flips both ways Tango's interval is the same to four digits.
    each = (examples.scores.argmax(1) == labels) * 1.0 - (examples.other_scores.argmax(1) == labels)
    random = np.random.default_rng(4)
    drawn = random.integers(0, _COUNT, (2_000, _COUNT))
    means = (each * examples.weights)[drawn].sum(1) / examples.weights[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    # Weights of 0..3 have 2/3 of the variance that they would have if only the heaviest flipped.
    wider = math.sqrt(1.5) if weighted else 1.0
    assert paired.difference - paired.low == pytest.approx(wider * (paired.difference - low), abs=5e-4)
    assert paired.high - paired.difference == pytest.approx(wider * (high - paired.difference), abs=5e-4)


def test_statistics_are_the_same_in_whatever_order_and_parts_the_examples_come() -> None:
    examples = _examples()
    found = []
    for seed, parts in ((1, 3), (2, 100), (3, 1)):
        order = np.random.default_rng(seed).permutation(_COUNT)
        found.append(reduce(add, [PairedSums.of(examples.rows(part)) for part in np.array_split(order, parts)]))
    pairs = [sums.paired() for sums in found]
    for name in ("agreement", "better", "worse", "difference", "low", "high", "mcnemar_p", "ties"):
        assert len({getattr(paired, name) for paired in pairs}) == 1
    np.testing.assert_array_equal(found[0].by_class, found[1].by_class)


@pytest.mark.parametrize(
    ("count", "bound", "confidence"),
    [(400, 0.01, 0.95), (700, 0.01, 0.95), (1_000, 0.01, 0.9), (1_000, 0.01, 0.99), (200, 0.05, 0.95)],
)
def test_gate_at_a_confidence_seldom_blesses_a_model_that_lost_as_much_as_the_bound(
    count: int, bound: float, confidence: float
) -> None:
    # Each example flips, to worse, with the probability of the bound: how likely are the numbers that are blessed?
    gate = Gate.parse(f"accuracy drop <= {bound} at {100 * confidence:g}%")
    blessed = 0.0
    for worse in range(round(3 * bound * count)):
        labels = np.zeros(count, int)
        scores = np.eye(2)[(np.arange(count) < worse) * 1]
        sums = PairedSums.of(
            Examples(labels=labels, scores=scores, other_scores=np.eye(2)[labels], weights=np.ones(count))
        )
        if gate.holds(-sums.paired(confidence).low):
            blessed += binom.pmf(worse, count, bound)
    assert 0 < blessed <= (1 - confidence) / 2


@pytest.mark.parametrize(
    ("count", "heavy", "weight", "bound"),
    [(4_000, 200, 20, 0.01), (6_000, 300, 20, 0.01), (8_000, 400, 20, 0.01), (2_000, 60, 30, 0.05)],
)
def test_gate_at_a_confidence_seldom_blesses_when_only_heavy_examples_flip(
    count: int, heavy: int, weight: int, bound: float
) -> None:
    # The heavy ones alone flip, to worse, so often that the true drop is the bound.
    gate = Gate.parse(f"accuracy drop <= {bound} at 95%")
    weights = np.where(np.arange(count) < heavy, float(weight), 1.0)
    share = bound * weights.sum() / (weight * heavy)
    labels, blessed = np.zeros(count, int), 0.0
    for worse in range(12):
        scores = np.eye(2)[(np.arange(count) < worse) * 1]
        halves = [
            PairedSums.of(
                Examples(
                    labels=labels[rows],
                    scores=scores[rows],
                    other_scores=np.eye(2)[labels[rows]],
                    weights=weights[rows],
                )
            )
            for rows in (slice(0, heavy), slice(heavy, count))
        ]
        paired = reduce(add, halves).paired()
        assert paired.effective_examples == pytest.approx(weights.sum() / weight)
        if paired.effective_examples >= gate.needed_examples() and gate.holds(-paired.low):
            blessed += binom.pmf(worse, heavy, share)
    assert not gate.holds(-paired.low)
    assert 0 < blessed <= 0.025


@pytest.mark.parametrize(("better", "worse", "examples"), [(0, 0, 100), (3, 10, 500), (40, 20, 300), (0, 7, 50.5)])
def test_score_low_is_where_the_score_statistic_is_the_quantile(better: float, worse: float, examples: float) -> None:
    low = score_low(better, worse, examples, 0.95)
    # The likeliest share that flips to better, given the difference, by trying: maximum of the multinomial likelihood.
    shares = np.linspace(1e-9, 1, 2_000_001)
    shares = shares[(shares > low) & (2 * shares - low <= 1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = (
            xlogy(better, shares) + xlogy(worse, shares - low) + xlogy(examples - better - worse, 1 - 2 * shares + low)
        )
    share = shares[np.argmax(logs)]
    variance = examples * (2 * share - low - low**2)
    assert (better - worse - examples * low) / math.sqrt(variance) == pytest.approx(1.959964, abs=2e-3)


def test_interval_is_wide_when_a_few_examples_have_no_flip() -> None:
    labels, scores = np.arange(10) % 2, np.eye(2)[np.arange(10) % 2]
    paired = PairedSums.of(Examples(labels=labels, scores=scores, other_scores=scores, weights=np.ones(10))).paired()
    assert (paired.better, paired.worse, paired.difference, paired.mcnemar_p) == (0, 0, 0.0, 1.0)
    assert paired.low <= -0.1
    assert paired.high >= 0.1


def test_by_class_counts_flips_of_each_label() -> None:
    scores = np.eye(3)[[0, 1, 2, 2]]
    other = np.eye(3)[[0, 2, 2, 1]]
    sums = PairedSums.of(Examples(labels=np.array([0, 1, 2, 1]), scores=scores, other_scores=other, weights=np.ones(4)))
    assert sums.by_class.tolist() == [[1, 1, 0, 0], [2, 0, 1, 1], [1, 1, 0, 0]]


def test_by_class_counts_flips_of_each_of_several_labels() -> None:
    examples = Examples(
        labels=np.array([[1, 0, 1], [0, 0, 1]]),
        scores=np.array([[0.9, 0.1, 0.1], [0.9, 0.1, 0.9]]),
        other_scores=np.array([[0.9, 0.9, 0.9], [0.1, 0.1, 0.9]]),
        weights=np.ones(2),
    )
    sums = PairedSums.of(examples.rows(np.array([0]))) + PairedSums.of(examples.rows(np.array([1])))
    assert sums.by_class.tolist() == [[2, 1, 0, 1], [2, 1, 1, 0], [2, 1, 0, 1]]


def test_several_labels_of_an_example_count_by_their_share() -> None:
    labels = np.array([[1, 0, 1, 0]])
    scores, other = np.array([[0.9, 0.1, 0.8, 0.9]]), np.array([[0.9, 0.6, 0.2, 0.1]])
    paired = PairedSums.of(Examples(labels=labels, scores=scores, other_scores=other, weights=np.ones(1))).paired()
    assert paired.agreement == 0.25
    assert (paired.better, paired.worse) == (1, 0)  # three of four right, against two
    assert paired.difference == 0.25


def test_values_have_no_classes_to_compare() -> None:
    ones = np.ones((3, 1), np.float32)
    paired = PairedSums.of(Examples(labels=ones, scores=ones, other_scores=ones, weights=np.ones(3))).paired()
    assert paired.examples == 3
    assert (paired.better, paired.worse) == (0, 0)
    assert all(math.isnan(value) for value in (paired.agreement, paired.difference, paired.low, paired.mcnemar_p))


@pytest.mark.parametrize(
    ("better", "worse", "p"), [(0, 0, 1.0), (3, 3, 1.0), (1, 9, 22 / 1024), (400, 601, 2.5e-10), (5_000, 5_400, 9e-5)]
)
def test_mcnemar_is_exact_for_few_flips_and_close_for_many(better: int, worse: int, p: float) -> None:
    assert mcnemar(better, worse) == pytest.approx(p, rel=0.1)
    assert mcnemar(worse, better) == mcnemar(better, worse)


def test_labels_that_the_model_does_not_know_are_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match=r"label: got -1, 3, expected 0\.\.2, the classes of the model"):
        decisions_of_labels(np.array([[0], [3], [-1]]), np.zeros((3, 3)), "classes")
    with pytest.raises(ValueError, match="got 2 labels for an example, expected 1"):
        decisions_of_labels(np.zeros((3, 2), int), np.zeros((3, 3)), "classes")
    with pytest.raises(ValueError, match="as wide as the scores that are not one-hot"):
        decisions_of_labels(np.array([[1, 1, 0]]), np.zeros((1, 3)), "classes")


def test_decide_takes_positions_of_a_map_one_by_one() -> None:
    decided = decide(np.array([[[[0.2, 0.8], [0.7, 0.3]]]]), "classes")
    assert decided.classes.tolist() == [[1, 0]]
    assert decided.tied.tolist() == [False]


_LABELS = np.array([0, 1, 2, 1])
_GOOD = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        (_GOOD, ()),
        (np.tile(_GOOD[:1], (4, 1)), ("constant", "one class")),
        (np.array([[0.8, 0.1, 0.1], [0.7, 0.1, 0.1], [0.8, 0.1, 0.1], [0.8, 0.1, 0.1]]), ("one class",)),
        (np.eye(3)[[2, 0, 1, 2]], ("saturated",)),
        (np.eye(3)[[0, 1, 2, 1]], ()),  # sure, and right
        (np.where(_GOOD == 0.7, np.nan, _GOOD), ("not a number",)),
    ],
)
def test_degenerate_outputs_are_found_whatever_the_parts(scores: np.ndarray, found: tuple[str, ...]) -> None:
    def sums(rows: slice) -> OutputSums:
        return OutputSums.of(_LABELS[rows], scores[rows], _GOOD[rows], limits=(0.0, 1.0))

    assert sums(slice(0, 4)).degenerate() == found
    assert (sums(slice(0, 1)) + sums(slice(1, 4))).degenerate() == found


def test_inputs_are_clipped_when_they_lie_more_than_half_a_step_beyond_the_range() -> None:
    limits = InputRange(low=-1.0, high=1.0, step=0.5)
    first = InputSums.of(np.array([[-1.2, 0.0], [1.25, 1.0]], np.float32), limits)
    both = first + InputSums.of(np.array([[-1.3, 9.0]], np.float32), limits)
    assert (first.values, first.clipped, first.share) == (4, 0, 0.0)
    assert (both.values, both.clipped, both.share) == (6, 2, pytest.approx(1 / 3))
    assert (both.lowest, both.highest) == (pytest.approx(-1.3), 9.0)


def test_sums_take_the_same_room_for_however_many_examples() -> None:
    examples = _examples(weighted=True)
    limits = InputRange(low=-1.0, high=1.0, step=0.5)

    def room(count: int) -> list[int]:
        some = [examples.rows(rows) for rows in np.array_split(np.arange(_COUNT)[:count], 10)]
        sums = (
            reduce(add, [PairedSums.of(part) for part in some]),
            reduce(add, [OutputSums.of(part.labels, part.scores, part.other_scores, (0.0, 1.0)) for part in some]),
            reduce(add, [LabelClues.of(part.labels, part.scores, None) for part in some]),
            reduce(add, [InputSums.of(part.scores, limits) for part in some]),
        )
        return [len(pickle.dumps(one)) for one in sums]

    assert room(_COUNT) == pytest.approx(room(100), abs=16)  # a count of more digits takes bytes more


def test_one_class_is_not_degenerate_when_the_examples_have_one() -> None:
    scores = np.array([[0.8, 0.2], [0.7, 0.3]])
    assert OutputSums.of(np.zeros(2, int), scores).degenerate() == ()


@pytest.mark.parametrize("labels", [np.eye(3, dtype=int)[_LABELS], np.eye(3, dtype=np.float32)[_LABELS]])
def test_one_hot_labels_are_classes_when_it_is_declared(labels: np.ndarray) -> None:
    scores, other = np.eye(3)[[0, 1, 2, 2]], np.eye(3)[[0, 2, 2, 2]]
    given = {"scores": scores, "other_scores": other, "weights": np.ones(4)}
    declared = PairedSums.of(Examples(labels=labels, kind="classes", **given))
    by_index = PairedSums.of(Examples(labels=_LABELS, **given))
    assert declared.paired() == by_index.paired()
    assert declared.by_class.tolist() == by_index.by_class.tolist()
    collapsed = np.array([[0.8, 0.1, 0.1], [0.7, 0.1, 0.1], [0.8, 0.1, 0.1], [0.8, 0.1, 0.1]])
    assert OutputSums.of(labels, collapsed, _GOOD, None, "classes").degenerate() == ("one class",)


@pytest.mark.parametrize("wrong", [0, 1, 300])
@pytest.mark.parametrize(("right", "found"), [(0, ("one class",)), (2, ("one class",)), (3, ())])
def test_one_class_is_degenerate_as_long_as_decisions_for_others_are_wrong(
    wrong: int, right: int, found: tuple[str, ...]
) -> None:
    labels = np.repeat([0, 1], [960, 40])
    decided = np.zeros(1000, int)
    decided[:wrong] = 1
    decided[960 : 960 + right] = 1  # of 40 that the float model gets right, 3 are more than a twentieth
    scores = np.random.default_rng(0).uniform(0.1, 0.2, (1000, 2))
    scores[np.arange(1000), decided] += 0.6
    good = np.eye(2)[labels] * 0.8
    parts = [OutputSums.of(labels[cut], scores[cut], good[cut]) for cut in (slice(0, 970), slice(970, 1000))]
    assert (parts[0] + parts[1]).degenerate() == found
    assert OutputSums.of(labels, good, good).degenerate() == ()
    if wrong:  # a float model that is right in one class alone is no measure
        assert OutputSums.of(labels, scores, np.eye(2)[np.zeros(1000, int)]).degenerate() == ()


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (np.array([[1, 0], [0, 1], [1, 1]]), np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.1]])),
        (np.array([[[0, 1]], [[1, 0]]]), np.array([[[[2.0, 1.0], [0.0, 1.0]]], [[[3.0, 1.0], [0.5, 1.0]]]])),
        (np.array([[0], [1], [1]]), np.array([[0.6], [0.7], [0.8]])),
    ],
    ids=["several labels", "map of classes", "one score"],
)
def test_one_class_is_found_where_no_decision_ever_changes(labels: np.ndarray, scores: np.ndarray) -> None:
    parts = [OutputSums.of(labels[row : row + 1], scores[row : row + 1]) for row in range(len(labels))]
    assert reduce(add, parts).degenerate() == ("one class",)
    scores = np.concatenate([scores, 1 - scores])
    assert OutputSums.of(np.concatenate([labels, labels]), scores).degenerate() == ()


def test_saturated_is_found_among_many_classes_and_not_where_the_model_is_sure() -> None:
    labels, float_scores = np.arange(100) % 10, np.full((100, 10), 0.1)
    wrong, right = np.eye(10)[(labels + 1) % 10], np.eye(10)[labels]
    assert "saturated" in OutputSums.of(labels, wrong, right, (0.0, 1.0)).degenerate()
    assert OutputSums.of(labels, right, right, (0.0, 1.0)).degenerate() == ()
    assert "saturated" in OutputSums.of(labels, right, float_scores, (0.0, 1.0)).degenerate()


@pytest.mark.parametrize(
    ("weights", "effective"),
    [
        (np.ones(400), 400.0),
        (np.r_[1.0, np.zeros(399)], 1.0),
        (np.r_[np.ones(5), np.full(395, 1e-6)], 5.0),
        (np.zeros(400), 0.0),
    ],
    ids=["equal", "one", "five", "none"],
)
def test_interval_is_as_wide_as_that_of_so_many_examples_of_equal_weight(weights: np.ndarray, effective: float) -> None:
    labels = np.arange(400) % 2
    scores = np.eye(2)[labels]
    paired = PairedSums.of(Examples(labels=labels, scores=scores, other_scores=scores, weights=weights)).paired()
    assert paired.effective_examples == pytest.approx(effective, rel=1e-3)
    if effective:
        count = round(effective)
        equal = PairedSums.of(
            Examples(labels=labels[:count], scores=scores[:count], other_scores=scores[:count], weights=np.ones(count))
        ).paired()
        assert paired.low == pytest.approx(equal.low, rel=0.35)
    else:
        assert math.isnan(paired.low)


_ONE_HOT = np.eye(3, dtype=int)


@pytest.mark.parametrize(
    ("labels", "scores", "kind", "question"),
    [
        (_ONE_HOT, np.full((3, 3), 1 / 3), None, "one-hot and scores add up to 1, yet they count as labels"),
        (_ONE_HOT.astype("f4"), np.full((3, 3), 1 / 3), None, "yet they count as values"),
        (_ONE_HOT, np.full((3, 3), 1 / 3), "classes", ""),
        (_ONE_HOT, np.full((3, 3), 1 / 3), "labels", ""),
        (_ONE_HOT, np.full((3, 3), 0.4), None, ""),
        (np.array([[1, 1, 0], [0, 1, 0]]), np.full((2, 3), 1 / 3), None, ""),
        (np.array([[0.0], [1.0]], "f4"), np.array([[0.2], [0.9]]), None, "0 and 1 alone and scores are probabilities"),
        (np.array([[0.0], [1.0]], "f4"), np.array([[0.2], [0.9]]), "values", ""),
        (np.array([[0.0], [1.0]], "f4"), np.array([[0.2], [1.9]]), None, ""),  # unless an accuracy is computed
        (np.array([[0.0], [0.5]], "f4"), np.array([[0.2], [0.9]]), None, ""),
        (np.array([[0], [1]]), np.array([[-2.0], [3.0]]), None, "end the model in a sigmoid"),
        (np.array([[0, 1], [1, 0]]), np.array([[-2.0, 3.0], [1.0, 0.0]]), "labels", "end the model in a sigmoid"),
        (np.array([[0], [1]]), np.array([[-2.0, 3.0], [1.0, 0.0]]), None, ""),
    ],
)
def test_label_clues_ask_only_where_labels_may_be_meant_otherwise(
    labels: np.ndarray, scores: np.ndarray, kind: Any, question: str
) -> None:
    parts = [LabelClues.of(labels[row : row + 1], scores[row : row + 1], kind) for row in range(len(labels))]
    found = reduce(add, parts).question()
    assert (question in found) if question else not found


@pytest.mark.parametrize(
    ("labels", "scores", "kind", "class_name"),
    [
        (np.array([[0], [1]]), np.array([[0.2], [0.9]]), None, "BinaryAccuracy"),
        (np.array([[0], [1]]), np.full((2, 3), 1 / 3), None, "SparseCategoricalAccuracy"),
        (_ONE_HOT, np.full((3, 3), 1 / 3), "classes", "CategoricalAccuracy"),
        (_ONE_HOT, np.full((3, 3), 1 / 3), "labels", "BinaryAccuracy"),
        (np.array([[0, 1]]), np.full((1, 2, 3), 1 / 3), None, "SparseCategoricalAccuracy"),
        (np.array([[0.0], [1.0]], "f4"), np.array([[0.2], [0.9]]), "classes", "BinaryAccuracy"),
        (np.array([[0.0], [1.0]], "f4"), np.array([[-2.0], [9.0]]), None, ""),
    ],
)
def test_accuracy_class_is_the_one_that_counts_what_is_decided(
    labels: np.ndarray, scores: np.ndarray, kind: Any, class_name: str
) -> None:
    parts = [LabelClues.of(labels[row : row + 1], scores[row : row + 1], kind) for row in range(len(labels))]
    assert reduce(add, parts).accuracy_class == class_name


_COIN = {"float": 0.4785, "integer": 0.4785}


@pytest.mark.parametrize(
    ("class_name", "wanted", "values", "shares", "question"),
    [
        (
            "SparseCategoricalAccuracy",
            "BinaryAccuracy",
            _COIN,
            {"integer": 0.5, "float": 0.98},
            "float model is 0.4785",
        ),
        ("BinaryAccuracy", "BinaryAccuracy", _COIN, {"float": 0.478501, "integer": 0.4785}, ""),
        ("BinaryAccuracy", "BinaryAccuracy", _COIN, {"float": 0.4785, "integer": 0.5}, "but 0.5 of its decisions are"),
        ("BinaryAccuracy", "BinaryAccuracy", {"float": math.nan}, {"float": 0.5}, "of the float model is nan by"),
        ("BinaryAccuracy", "BinaryAccuracy", {"float": 0.0}, {"float": math.nan}, ""),  # nothing weighs
        ("BinaryAccuracy", "", _COIN, dict.fromkeys(_COIN, math.nan), "yet labels count as values"),
    ],
)
def test_accuracy_is_questioned_when_it_is_not_the_share_of_right_decisions(
    class_name: str, wanted: str, values: dict[str, float], shares: dict[str, float], question: str
) -> None:
    found = accuracy_question("accuracy", class_name, wanted, values, shares)
    assert (question in found) if question else not found


def test_regression_is_degenerate_when_it_is_constant() -> None:
    labels = np.array([[1.0], [2.0]], np.float32)
    assert OutputSums.of(labels, np.full((2, 1), 3.0)).degenerate() == ("constant",)
    assert OutputSums.of(labels, np.array([[1.0], [2.0]])).degenerate() == ()


@pytest.mark.parametrize(("highest", "is_probability"), [(1.0000001, True), (1.01, False)])
def test_calibration_takes_probabilities_that_were_rounded_and_nothing_else(
    highest: float, is_probability: bool
) -> None:
    scores = np.array([[highest, 0.0]])
    paired = PairedSums.of(
        Examples(labels=np.array([[0]]), scores=scores, other_scores=scores, weights=np.ones(1))
    ).paired()
    assert (paired.calibration_error == pytest.approx(0, abs=1e-6)) == is_probability
    assert math.isnan(paired.calibration_error) != is_probability
