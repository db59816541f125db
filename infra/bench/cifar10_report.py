"""What all seeds of the CIFAR-10 benchmark say together: accuracies, agreements, paired differences and bars."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.bench import paired, results

# What is compared, if it was made: int8 is with the reference kernels unless it says otherwise.
_PAIRS = (
    ("QAT int8", "float"),
    ("QAT int8, default kernels", "float"),
    ("PTQ int8", "float"),
    ("QAT int8", "PTQ int8"),
    ("QAT int8", "QAT in Keras"),
    ("tfmot int8", "float"),
    ("QAT int8", "tfmot int8"),
)
_AGREEMENTS = (
    ("QAT in Keras", "QAT int8"),
    ("QAT in Keras", "QAT int8, default kernels"),
    ("QAT int8", "QAT int8, default kernels"),
    ("float", "PTQ int8"),
    ("tfmot in Keras", "tfmot int8"),
)
_ALLOWED_DROP = 0.2
_NEEDED_AGREEMENT = 99.0
# TFLite's specification gives scales and leaves rounding to the kernels. The default ones round once, which is nearest
# to exact arithmetic; the reference ones round twice, in fixed point.
_NEAREST = ("QAT in Keras", "QAT int8, default kernels")

Classes = npt.NDArray[np.int64]


class Report:
    """What all seeds together say."""

    def __init__(self, predictions: dict[int, dict[str, Classes]], labels: Classes) -> None:
        """Sums up.

        Args:
          predictions: By seed and name, the predicted class of each test image.
          labels: The classes of the test images.
        """
        self._seeds = tuple(predictions)
        self._names = tuple(predictions[self._seeds[0]])
        self._classes = {name: np.stack([predictions[seed][name] for seed in self._seeds]) for name in self._names}
        self._right = {name: classes == labels for name, classes in self._classes.items()}
        self._differences = {
            pair: paired.difference(self._right[pair[0]], self._right[pair[1]])
            for pair in _PAIRS
            if set(pair) <= set(self._names)
        }

    def _agreements(self) -> dict[tuple[str, str], list[float]]:
        return {
            (one, other): (100.0 * np.mean(self._classes[one] == self._classes[other], axis=1)).tolist()
            for one, other in _AGREEMENTS
            if {one, other} <= set(self._names)
        }

    def facts(self) -> dict[str, Any]:
        """Returns all numbers, for a file."""
        return {
            "seeds": self._seeds,
            "accuracy_percent": {
                name: (100.0 * np.mean(right, axis=1)).tolist() for name, right in self._right.items()
            },
            "agreement_percent": {" / ".join(pair): values for pair, values in self._agreements().items()},
            "differences": {" - ".join(pair): dataclasses.asdict(d) for pair, d in self._differences.items()},
        }

    def __str__(self) -> str:
        """Three tables, and whether the bars are met."""
        titles = [f"seed {seed}" for seed in self._seeds]
        accuracies = [self._row(name, 100.0 * np.mean(self._right[name], axis=1)) for name in self._names]
        agreements = [self._row(" / ".join(pair), np.array(values)) for pair, values in self._agreements().items()]
        differences = [
            (" - ".join(pair), f"{d.points:+.2f}", f"{d.standard_error:.2f}", _signed(d.by_seed), _rounded(d.p_by_seed))
            for pair, d in self._differences.items()
        ]
        columns = ("points, mean", "standard error, paired", "by seed", "McNemar's p by seed")
        drops = {pair[0]: -self._differences[pair].points for pair in _PAIRS[:2]}
        agreement = float(np.mean(self._agreements()[_NEAREST]))
        bars = (
            *(
                _bar(f"{name} at most {_ALLOWED_DROP} points below float: {drop:.2f} below", drop <= _ALLOWED_DROP)
                for name, drop in drops.items()
            ),
            _bar(
                f"agreement of {' and '.join(_NEAREST)} of at least {_NEEDED_AGREEMENT:g} %: {agreement:.2f} %",
                agreement >= _NEEDED_AGREEMENT,
            ),
        )
        tables = (
            results.markdown_table(["accuracy, %", *titles, "mean"], accuracies),
            results.markdown_table(["top-1 agreement, %", *titles, "mean"], agreements),
            results.markdown_table(["difference", *columns], differences),
        )
        return "\n\n".join((*tables, "\n".join(bars)))

    @staticmethod
    def _row(name: str, values: npt.NDArray[np.float64]) -> list[str]:
        return [name, *(f"{value:.2f}" for value in values), f"{np.mean(values):.2f}"]


def _signed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:+.2f}" for value in values)


def _rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _bar(text: str, holds: bool) -> str:
    return f"{'holds' if holds else 'fails'}: {text}"
