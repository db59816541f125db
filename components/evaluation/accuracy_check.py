"""Whether what a task calls an accuracy is the share of right decisions, of which paired figures and intervals are.

Keras takes any labels and scores: `SparseCategoricalAccuracy` of a sigmoid is the share of zeros, whatever the model.
"""

import math
from collections.abc import Mapping

_ROUNDING = 1e-5  # of sums of weights, where a metric adds them up in single precision


def accuracy_question(
    name: str, class_name: str, wanted: str, values: Mapping[str, float], shares: Mapping[str, float]
) -> str:
    """Returns what has to be mended before an accuracy means anything, told of the worst model; empty if nothing has.

    Args:
      name: What the metric is called.
      class_name: Its class.
      wanted: The class that counts right decisions on such labels and scores; "" if there are values to come near to.
      values: The metric, by model.
      shares: The share of right decisions, by model; NaN where nothing weighs, which refuses by itself.

    >>> accuracy_question("accuracy", "CategoricalAccuracy", "BinaryAccuracy", {"float": 1.0}, {"float": 0.98})
    'accuracy of the float model is 1 by CategoricalAccuracy, but 0.98 of its decisions are right; use BinaryAccuracy'
    """
    if not wanted:
        return (
            f"{name} is {class_name}, yet labels count as values, of which none is right or wrong; set"
            " label_kind='labels' for several labels or 'classes' for one, or use a metric of values, such as"
            " MeanAbsoluteError"
        )
    gaps = {model: _gap(value, shares[model]) for model, value in values.items() if not math.isnan(shares[model])}
    model = max(gaps, key=gaps.__getitem__, default="")
    if not model or gaps[model] <= _ROUNDING:
        return ""
    use = f"; use {wanted}" if class_name.rpartition(".")[2] != wanted else ""
    return (
        f"{name} of the {model} model is {values[model]:.6g} by {class_name}, but {shares[model]:.6g} of its decisions"
        f" are right{use}"
    )


def _gap(value: float, share: float) -> float:
    gap = abs(value - share)
    return math.inf if math.isnan(gap) else gap
