"""Which examples flip from the float to the integer model, that is get another class: counts that merge, and the worst.

Memory grows with neither examples nor flips: pairs of classes are counted, and a few examples kept.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.evaluation.decisions import decide, decisions_of_labels, kind_of
from components.evaluation.paired_statistics import Examples

Pair = tuple[int, int]
"""The class that the float model says, and that which the integer model says."""
# A picture is drawn with no more pixels a side, and of other inputs no more values are told.
_SIDE_PIXELS = 64
_VALUES = 16
_SMALLEST_PIXELS = 4  # what is smaller is no picture, but a few features
_CHANNELS = (1, 3)  # gray, or red, green and blue


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """An example that flipped.

    Attributes:
      label: Its class.
      float_class: What the float model says.
      float_score: That model's score of it.
      integer_class: What the integer model says.
      integer_score: That model's score of it.
      margin: By how much the float model prefers its class to that of the integer model, in its own scores.
      digest: Of the inputs and the label: it orders examples of the same margin, whoever sees them first.
      inputs: What the models were given, by input: a picture, uint8 (height, width, 1 or 3), or the first values,
        (values,).
    """

    label: int
    float_class: int
    float_score: float
    integer_class: int
    integer_score: float
    margin: float
    digest: str
    inputs: Mapping[str, npt.NDArray[Any]]

    @property
    def rank(self) -> tuple[float, str]:
        """By which flips are sorted: those first of which the float model was surest."""
        return (-math.inf if math.isnan(self.margin) else -self.margin, self.digest)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FlipSums:
    """The flips of some examples. Those of two parts add up to those of both.

    Attributes:
      pairs: By the pair of classes, how many examples, how many of them only the float model has right, and how many
        only the integer model.
      worst: The examples of largest margin, sorted, at most `kept`.
      kept: How many examples are kept.
    """

    pairs: Mapping[Pair, tuple[int, int, int]]
    worst: tuple[Flip, ...]
    kept: int

    def __add__(self, other: "FlipSums") -> "FlipSums":
        pairs = dict(self.pairs)
        for pair, counts in other.pairs.items():
            before = pairs.get(pair, (0, 0, 0))
            pairs[pair] = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])
        worst = sorted((*self.worst, *other.worst), key=lambda flip: flip.rank)
        return FlipSums(pairs=pairs, worst=tuple(worst[: self.kept]), kept=self.kept)

    @classmethod
    def of(
        cls,
        examples: Examples,
        inputs: Mapping[str, npt.NDArray[Any]],
        limits: Mapping[str, tuple[float, float]],
        kept: int,
    ) -> "FlipSums | None":
        """Returns the flips of a batch; None where an example has not one class, but several, or values.

        Args:
          examples: Labels, and scores of the integer and of the float model.
          inputs: What both models were given, by input, (examples, ...).
          limits: The lowest and highest value that the integer model can tell of an input, by input, where known.
          kept: How many examples are kept.
        """
        if kind_of(examples.labels, examples.scores, examples.kind) != "classes":
            return None
        labels = decisions_of_labels(examples.labels, examples.scores, "classes")
        if labels.shape[1] != 1:
            return None
        integer, other = (
            decide(scores, "classes").classes[:, 0] for scores in (examples.scores, examples.other_scores)
        )
        flipped = np.flatnonzero(integer != other)
        classes = np.stack([labels[:, 0], other, integer], axis=1)[flipped]
        margins = _picked(examples.other_scores[flipped], classes[:, 1])
        margins -= _picked(examples.other_scores[flipped], classes[:, 2])
        found = []
        for index in _largest(margins, kept):
            row, (label, said, ours) = flipped[index], classes[index].tolist()
            flip = Flip(
                label=label,
                float_class=said,
                float_score=float(_by_class(examples.other_scores[row : row + 1])[0, said]),
                integer_class=ours,
                integer_score=float(_by_class(examples.scores[row : row + 1])[0, ours]),
                margin=float(margins[index]),
                digest=_digest(inputs, label, row),
                inputs={name: _shown(values[row], limits.get(name)) for name, values in inputs.items()},
            )
            found.append(flip)
        worst = sorted(found, key=lambda flip: flip.rank)[:kept]
        return cls(pairs=_counted(classes), worst=tuple(worst), kept=kept)


def _counted(classes: npt.NDArray[np.int64]) -> dict[Pair, tuple[int, int, int]]:
    """Counts pairs; of each flip its label, the float model's class and that of the integer model are given."""
    pairs: dict[Pair, tuple[int, int, int]] = {}
    for label, said, ours in classes.tolist():
        count, only_float, only_integer = pairs.get((said, ours), (0, 0, 0))
        pairs[said, ours] = (count + 1, only_float + (said == label), only_integer + (ours == label))
    return pairs


def _by_class(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Scores of shape (examples, classes), also where there is one for two classes."""
    values = scores.astype(np.float64).reshape(len(scores), math.prod(scores.shape[1:]))
    return np.concatenate([1 - values, values], axis=1) if values.shape[1] == 1 else values


def _picked(scores: npt.NDArray[Any], classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    picked: npt.NDArray[np.float64] = _by_class(scores)[np.arange(len(scores)), classes]
    return picked


def _largest(margins: npt.NDArray[np.float64], kept: int) -> list[int]:
    """The positions of the largest margins, also of all that tie with the last of them."""
    if not kept or not len(margins):
        return []
    ranks = np.where(np.isnan(margins), -np.inf, -margins)
    found: list[int] = np.flatnonzero(ranks <= np.sort(ranks)[min(kept, len(ranks)) - 1]).tolist()
    return found


def _digest(inputs: Mapping[str, npt.NDArray[Any]], label: int, row: int) -> str:
    hashed = hashlib.sha256(str(label).encode())
    for name in sorted(inputs):
        hashed.update(np.ascontiguousarray(inputs[name][row]).tobytes())
    return hashed.hexdigest()


def _shown(values: npt.NDArray[Any], limits: tuple[float, float] | None) -> npt.NDArray[Any]:
    """What is kept of an input of one example."""
    if not is_picture(values):
        return values.ravel()[:_VALUES].astype(np.float64)
    stride = math.ceil(max(values.shape[:2]) / _SIDE_PIXELS)
    pixels = values[::stride, ::stride].astype(np.float64)
    low, high = limits or (float(pixels.min()), float(pixels.max()))
    shares: npt.NDArray[np.float64] = np.clip((pixels - low) / ((high - low) or 1.0), 0, 1)
    picture: npt.NDArray[np.uint8] = np.rint(255 * shares).astype(np.uint8)
    return picture


def is_picture(values: npt.NDArray[Any]) -> bool:
    """Whether an input of one example, or what was kept of it, is a picture: height, width, and one or three channels.

    >>> is_picture(np.zeros((8, 8, 1))), is_picture(np.zeros((8, 8))), is_picture(np.zeros((1, 8, 3)))
    (True, False, False)
    """
    return values.ndim == 3 and values.shape[2] in _CHANNELS and min(values.shape[:2]) >= _SMALLEST_PIXELS
