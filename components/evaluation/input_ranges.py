"""How many inputs lie beyond what an integer model can represent, and so are clipped: drift that costs accuracy."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

CLIPPED_INPUTS = "clipped_inputs"
"""Fact: of the model's quantized inputs, the share of the worst one's values that are clipped, 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InputRange:
    """What the integers of an input stand for.

    Attributes:
      low: The lowest real value.
      high: The highest.
      step: Real value of one step of the integers.
    """

    low: float
    high: float
    step: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InputSums:
    """What is clipped of an input. Those of two parts of the examples add up to that of both.

    Attributes:
      values: How many values there were.
      clipped: How many of them lie more than half a step beyond the range.
      lowest: The lowest value.
      highest: The highest.
    """

    values: int
    clipped: int
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: npt.NDArray[Any], limits: InputRange) -> "InputSums":
        """Returns the sums of a batch.

        Args:
          values: Real values of any shape, at least one.
          limits: The input's.
        """
        real = values.astype(np.float64)
        beyond = (real < limits.low - limits.step / 2) | (real > limits.high + limits.step / 2)
        return cls(values=real.size, clipped=int(beyond.sum()), lowest=float(real.min()), highest=float(real.max()))

    def __add__(self, other: "InputSums") -> "InputSums":
        return InputSums(
            values=self.values + other.values,
            clipped=self.clipped + other.clipped,
            lowest=min(self.lowest, other.lowest),
            highest=max(self.highest, other.highest),
        )

    @property
    def share(self) -> float:
        """The share of the values that is clipped, 0 to 1."""
        return self.clipped / self.values
