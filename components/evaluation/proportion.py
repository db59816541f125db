"""A share of examples, such as an accuracy, with its confidence interval."""

import dataclasses
import math
import statistics


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proportion:
    """A share of examples.

    Attributes:
      value: The share, 0..1.
      low: Lower bound of its confidence interval.
      high: Upper bound of its confidence interval.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, examples: float, confidence: float) -> "Proportion":
        """Returns the share with Wilson's score interval, which stays within 0..1 and is no point at 0 and 1.

        Of examples with several decisions, whose share right is no coin toss, the interval is wider than it need be.
        https://doi.org/10.1080/01621459.1927.10502953

        Args:
          value: The share, 0..1; NaN gives NaN.
          examples: How many examples of equal weight say as much; 0 gives NaN.
          confidence: Of the interval, 0 to 1, both excluded.
        """
        if not examples or math.isnan(value):
            return cls(value=math.nan, low=math.nan, high=math.nan)
        z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
        shrunk = 1 + z * z / examples
        centre = (value + z * z / (2 * examples)) / shrunk
        half = z * math.sqrt(value * (1 - value) / examples + z * z / (4 * examples**2)) / shrunk
        return cls(value=value, low=max(0.0, centre - half), high=min(1.0, centre + half))
