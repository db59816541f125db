"""Whether two models predict the same. Imports no TensorFlow, so that a config can be read in no time."""

from typing import Any

import numpy as np
import numpy.typing as npt

AGREEMENT = "agreement"
EXAMPLE_COUNT = "example_count"


def agreeing(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Returns the share, 0..1, of predictions in which two arrays of scores agree.

    Args:
      first: Scores of shape (..., classes), or (..., 1) for the probability of one class.
      second: Those of the other model.

    >>> agreeing(np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([[0.4, 0.6], [0.6, 0.4]]))
    0.5
    """
    classes = [scores.argmax(-1) if scores.shape[-1:] > (1,) else scores > 0.5 for scores in (first, second)]
    return float(np.mean(classes[0] == classes[1]))
