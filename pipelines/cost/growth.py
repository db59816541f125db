"""What grows with the number of examples: a fixed part and a part for each example, from a few measurements."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_FIGURES = ("seconds", "peak_bytes", "written_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """A straight line.

    Attributes:
      fixed: Where there are no examples.
      per_example: What each one adds; never negative.
      deviation: The largest distance of a measurement from the line, as a share of the line there.
    """

    fixed: float
    per_example: float
    deviation: float

    @classmethod
    def of(cls, examples: Sequence[int], values: Sequence[float]) -> "Growth":
        """Returns the line of least squares, neither of whose parts is negative.

        >>> Growth.of([1000, 3000, 10000], [7.0, 11.0, 25.0])
        Growth(fixed=5.0, per_example=0.002, deviation=0.0)
        """
        count, value = np.asarray(examples, float), np.asarray(values, float)
        spread = count - count.mean()
        slope = max(0.0, float(spread @ value / (spread @ spread)))
        fixed = float(value.mean() - slope * count.mean())
        if fixed < 0:
            fixed, slope = 0.0, float(count @ value / (count @ count))
        line = fixed + slope * count
        deviation = float(np.max(np.abs(value - line) / np.maximum(line, 1e-12))) if np.any(line) else 0.0
        return cls(fixed=round(fixed, 12), per_example=round(slope, 12), deviation=round(deviation, 12))

    def at(self, examples: float, parts: float = 1.0) -> float:
        """Returns the value for so many examples, of which the part for each is shared out in so many parts."""
        return self.fixed + self.per_example * examples / parts


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """How a component of a pipeline grows.

    Attributes:
      name: The component's id.
      seconds: What it takes.
      peak_bytes: Its process's memory.
      written_bytes: Its artifacts.
    """

    name: str
    seconds: Growth
    peak_bytes: Growth
    written_bytes: Growth


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What was measured.

    Attributes:
      stages: How each component grows, in the order in which they run.
      examples: How many examples the runs had.
      about: What else is known of them, such as the machine, by name.
    """

    stages: tuple[Stage, ...]
    examples: tuple[int, ...]
    about: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Measurements":
        """Reads what `make bench-scale` wrote.

        Raises:
          ValueError: If it cannot be read, is something else, or has runs of fewer than two sizes.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            runs = sorted(found["runs"], key=lambda run: int(run["examples"]))
            counts = [int(run["examples"]) for run in runs]
            names = list(runs[0]["components"]) if len(set(counts)) != 1 else []
            stages = tuple(
                Stage(
                    name=name,
                    **{
                        figure: Growth.of(counts, [float(run["components"][name][figure]) for run in runs])
                        for figure in _FIGURES
                    },
                )
                for name in names
            )
            about = {str(name): str(text) for name, text in found["about"].items()}
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}; make it with `make bench-scale`") from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{path} is no file of measurements ({error!r}); make it with `make bench-scale`"
            ) from error
        if not stages or not all(map(_is_finite, stages)):
            raise ValueError(
                f"{path}: runs of {sorted(set(counts))} examples; two sizes at least say how a stage grows"
            )
        return cls(stages=stages, examples=tuple(counts), about=about)


def _is_finite(stage: Stage) -> bool:
    return all(math.isfinite(getattr(stage, figure).per_example) for figure in _FIGURES)
