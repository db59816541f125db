"""The calibration method that measures best."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence

from tensorflow.lite.python.convert import ConverterError

from components.quantization.conversion.calibration.methods import load_method

_LOGGER = logging.getLogger(__name__)
_PLAINEST = "min_max"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MethodScore:
    """What a calibration method scored.

    Attributes:
      method: Its name.
      score: Its score, higher is better; None if its model could not be converted or has no score.
      error: Why it has none; empty if it has one.
    """

    method: str
    score: float | None
    error: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The method that was chosen.

    Attributes:
      method: Its name.
      tflite: Its model, a TFLite flatbuffer.
      scores: All methods in the order tried, with what they scored.
      tolerance: By how much others had to score above "min_max".
    """

    method: str
    tflite: bytes
    scores: tuple[MethodScore, ...]
    tolerance: float = 0.0


def choose(
    methods: Sequence[str],
    make: Callable[[str], bytes],
    score: Callable[[bytes], float],
    tolerance: float = 0.0,
) -> Choice:
    """Converts a model by each method, and takes the one that scores highest.

    The choice is as good as the examples that score it: the best of several scores on them is optimistic. Let other
    examples than those that choose decide whether the model is good enough; a split of their own is right.

    Args:
      methods: Names of methods, each once. Of equal scores the earlier one wins, "min_max" always.
      make: Converts with a method of that name to a TFLite flatbuffer.
      score: Measures a flatbuffer on examples that calibration did not see; higher is better.
      tolerance: How far above "min_max" another must score to be taken: what the number of examples cannot tell apart,
        for example the standard error of the score, in its units. Nothing if "min_max" is not among the methods.

    Raises:
      ValueError: If an argument is wrong, or no method gives a model with a score; lists all reasons.

    >>> choice = choose(["min_max", "mse"], make=str.encode, score=len, tolerance=3)
    >>> choice.method, [(score.method, score.score) for score in choice.scores]
    ('min_max', [('min_max', 7.0), ('mse', 3.0)])
    """
    _require_usable(methods, tolerance)
    scores: list[MethodScore] = []
    best: tuple[float, bytes, str] | None = None
    # The plainest first, so that others must beat it; the record keeps the order given.
    for method in sorted(methods, key=lambda name: name != _PLAINEST):
        tflite, found = _measured(method, make, score)
        scores.append(found)
        if found.score is None:
            continue
        margin = tolerance if best is not None and best[2] == _PLAINEST else 0.0
        if best is None or found.score > best[0] + margin:
            best = found.score, tflite, method
    if best is None:
        reasons = "; ".join(f"{found.method}: {found.error}" for found in scores)
        raise ValueError(f"no calibration method gives a model with a score: {reasons}")
    scores.sort(key=lambda found: list(methods).index(found.method))
    _LOGGER.info("calibration: chose %s of %s", best[2], ", ".join(methods))
    return Choice(method=best[2], tflite=best[1], scores=tuple(scores), tolerance=tolerance)


def _require_usable(methods: Sequence[str], tolerance: float) -> None:
    if not methods or len(set(methods)) < len(methods):
        raise ValueError(f"calibration methods: got {list(methods)}, expected at least one, each once")
    for method in methods:
        load_method(method)
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance: got {tolerance}, expected a finite number that is not negative")


def _measured(method: str, make: Callable[[str], bytes], score: Callable[[bytes], float]) -> tuple[bytes, MethodScore]:
    try:
        tflite = make(method)
    except (ConverterError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        _LOGGER.info("calibration: %s failed: %s", method, reason)
        return b"", MethodScore(method=method, score=None, error=reason)
    value = float(score(tflite))
    _LOGGER.info("calibration: %s scores %g", method, value)
    if math.isnan(value):
        return b"", MethodScore(method=method, score=None, error="its score is not a number")
    return tflite, MethodScore(method=method, score=value)
