"""Flips: pairs of classes are counted, and the gravest examples kept, whatever the order of the parts."""

import dataclasses
import itertools
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest

from components.evaluation.decisions import Kind
from components.evaluation.flips import FlipSums
from components.evaluation.paired_statistics import Examples
from pipelines.configs import load_config

_COUNT = 600


def _examples(
    labels: Any, float_scores: Any, integer_scores: Any, kind: Kind | None = None, dtype: Any = np.int64
) -> Examples:
    return Examples(
        labels=np.asarray(labels, dtype),
        scores=np.asarray(integer_scores, np.float32),
        other_scores=np.asarray(float_scores, np.float32),
        weights=np.ones(len(labels)),
        kind=kind,
    )


def _random() -> tuple[Examples, dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    other = random.integers(0, 8, (_COUNT, 4)) / 8  # so few values that many margins are equal
    scores = other + random.integers(-2, 3, other.shape) / 8
    labels = random.integers(0, 4, (_COUNT, 1))
    return _examples(labels, other, scores), {"x": random.integers(0, 3, (_COUNT, 2)).astype(np.float32)}


def _of(examples: Examples, inputs: Mapping[str, np.ndarray], rows: Any, kept: int = 5) -> FlipSums:
    found = FlipSums.of(examples.rows(rows), {name: values[rows] for name, values in inputs.items()}, {}, kept)
    assert found is not None
    return found


def test_flips_count_each_pair_of_classes_and_who_has_it_right() -> None:
    # Float says 0, 0, 1, 2, 2; integer says 0, 1, 0, 1, 1; the labels are 0, 0, 0, 0, 1.
    found = FlipSums.of(
        _examples(
            [[0], [0], [0], [0], [1]],
            [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.7, 0.1], [0, 0.25, 0.75], [0, 0.5, 0.5001]],
            [[0.8, 0.2, 0], [0.4, 0.6, 0], [0.6, 0.3, 0.1], [0, 0.5, 0.25], [0, 0.6, 0.4]],
        ),
        {"x": np.arange(5.0)[:, None]},
        {},
        kept=2,
    )
    assert found is not None
    assert found.pairs == {(0, 1): (1, 1, 0), (1, 0): (1, 0, 1), (2, 1): (2, 0, 1)}
    # Margins: 0.6 - 0.4, 0.7 - 0.2, 0.75 - 0.25, 0.5001 - 0.5; the two largest tie.
    assert sorted(flip.inputs["x"].tolist() for flip in found.worst) == [[2.0], [3.0]]
    (last,) = [flip for flip in found.worst if flip.inputs["x"][0] == 3]
    assert (last.label, last.float_class, last.integer_class) == (0, 2, 1)
    assert (last.float_score, last.integer_score, last.margin) == (0.75, 0.5, 0.5)


def test_flips_of_parts_equal_a_plain_loop_in_whatever_order() -> None:
    examples, inputs = _random()
    said, ours = examples.other_scores.argmax(1), examples.scores.argmax(1)
    expected: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(said != ours):
        counts = expected.setdefault((int(said[row]), int(ours[row])), [0, 0, 0])
        label = examples.labels[row, 0]
        for column, counted in enumerate((True, said[row] == label, ours[row] == label)):
            counts[column] += int(counted)
    found = []
    for seed in range(3):
        parts = np.array_split(np.random.default_rng(seed).permutation(_COUNT), 23)
        found.append(reduce(add, [_of(examples, inputs, part) for part in parts]))
    assert {pair: list(counts) for pair, counts in found[0].pairs.items()} == expected
    assert all(one.pairs == found[0].pairs for one in found)
    kept = [[(flip.rank, flip.inputs["x"].tolist(), flip.label) for flip in one.worst] for one in found]
    assert kept[0] == kept[1] == kept[2] == sorted(kept[0])
    rows = np.arange(_COUNT)
    margins = (examples.other_scores[rows, said] - examples.other_scores[rows, ours])[said != ours]
    assert [-rank[0] for rank, _, _ in kept[0]] == pytest.approx(sorted(margins, reverse=True)[:5])


def test_there_is_nothing_to_add_when_no_example_of_a_batch_flips() -> None:
    examples, inputs = _random()
    same = np.flatnonzero(examples.other_scores.argmax(1) == examples.scores.argmax(1))
    none = _of(examples, inputs, same)
    assert (none.pairs, none.worst) == ({}, ())
    some = _of(examples, inputs, slice(None))
    assert none + some == some + none == some


def test_flips_keep_no_examples_when_none_are_asked_for() -> None:
    examples, inputs = _random()
    found = _of(examples, inputs, slice(None), kept=0)
    assert found.pairs
    assert found.worst == ()
    assert (found + found).worst == ()


def test_flip_of_one_score_is_across_a_half_and_has_the_score_of_what_was_said() -> None:
    # The probability of class 1: 0.75 by the float model, 0.25 by the integer model, which so gives class 0 0.75.
    found = FlipSums.of(_examples([[1]], [[0.75]], [[0.25]], "classes"), {"x": np.zeros((1, 1))}, {}, 1)
    assert found is not None
    (flip,) = found.worst
    assert (flip.float_class, flip.float_score, flip.integer_class, flip.integer_score) == (1, 0.75, 0, 0.75)
    assert flip.margin == 0.5


@pytest.mark.parametrize(
    ("labels", "shape", "dtype", "kind"),
    [
        (np.zeros((2, 1)), (2, 1), np.float32, "values"),
        (np.zeros((2, 3)), (2, 3), np.int64, "labels"),
        (np.zeros((2, 4, 4)), (2, 4, 4, 3), np.int64, "classes"),
    ],
)
def test_there_are_no_flips_when_an_example_has_not_one_class(
    labels: np.ndarray, shape: tuple[int, ...], dtype: Any, kind: Kind
) -> None:
    scores = np.zeros(shape)
    assert FlipSums.of(_examples(labels, scores, scores, kind, dtype), {"x": np.zeros((2, 1))}, {}, 3) is None


def test_flip_with_a_score_that_is_no_number_ranks_first() -> None:
    other = [[0.5, 0.25], [np.nan, 0.5]]
    found = FlipSums.of(_examples([[0], [0]], other, [[0, 1], [0, 1]]), {"x": np.array([[1.0], [2.0]])}, {}, 2)
    assert found is not None
    assert [flip.inputs["x"][0] for flip in found.worst] == [2.0, 1.0]


def _kept(values: np.ndarray, limits: Mapping[str, tuple[float, float]]) -> np.ndarray:
    found = FlipSums.of(_examples([[0]], [[1, 0]], [[0, 1]]), {"x": values[None]}, limits, 1)
    assert found is not None
    return found.worst[0].inputs["x"]


def test_picture_is_what_the_integer_model_can_tell_apart() -> None:
    pixels = np.zeros((4, 4, 1), np.float32)
    pixels[0, :, 0] = [-1, 0, 1, 3]
    # From -1 to 1: 0 is in the middle, 127.5, which rounds to even; 3 is beyond.
    assert _kept(pixels, {"x": (-1.0, 1.0)})[0, :, 0].tolist() == [0, 128, 255, 255]
    # Nobody knows the ends: those of the picture are taken. 0 is 1 of 4 steps up: 63.75.
    assert _kept(pixels, {})[0, :, 0].tolist() == [0, 64, 128, 255]
    assert _kept(np.full((4, 4, 3), 7.0), {}).tolist() == np.zeros((4, 4, 3)).tolist()


@pytest.mark.parametrize("shape", [*itertools.product((64, 65, 500), (64, 200), (1, 3))])
def test_picture_has_at_most_64_pixels_a_side(shape: tuple[int, int, int]) -> None:
    kept = _kept(np.zeros(shape, np.float32), {})
    assert max(kept.shape[:2]) <= 64
    assert kept.dtype == np.uint8
    assert kept.shape[2] == shape[2]


@pytest.mark.parametrize("shape", [(1_000,), (2, 3), (3, 8, 1), (8, 8, 2), (8, 8, 8, 1)])
def test_other_inputs_keep_their_first_values(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert _kept(values, {}).tolist() == [float(value) for value in range(min(16, values.size))]


@pytest.mark.parametrize("count", [-1, 51])
def test_config_refuses_more_flipped_examples_than_a_page_has_room_for(count: int) -> None:
    with pytest.raises(ValueError, match=rf"flipped_examples={count} \(0 to 50, which a page has room for\)"):
        dataclasses.replace(load_config("digits"), flipped_examples=count)
