"""Early stopping: which epoch is the best, and when to give up looking for a better one."""

import math
import re
from collections.abc import Iterable, Mapping

from components.quantization.qat.checkpoints import TrainingState
from components.quantization.qat.parameters import TrainingParameters

# Parts of names of metrics of which more is better; of all others, losses and errors above all, less is.
_MORE_IS_BETTER = re.compile(
    r"(^|_)(acc|accuracy|auc|precision|recall|sensitivity|specificity|iou|io_u|f1|fbeta|r2|psnr|ssim)(_|$)"
)


class EarlyStopping:
    """Follows one metric of the eval split. What it remembers is in the loop's state."""

    def __init__(self, parameters: TrainingParameters) -> None:
        """Takes the knobs that begin with early_stopping."""
        self.enabled = parameters.early_stopping_patience > 0
        self._patience = parameters.early_stopping_patience
        self._metric = parameters.early_stopping_metric
        mode = parameters.early_stopping_mode
        self._sign = -1.0 if mode == "max" or (mode == "auto" and _more_is_better(self._metric)) else 1.0

    def check_metric(self, names: Iterable[str]) -> None:
        """Checks that there is the metric.

        Args:
          names: Names of the model's metrics, without val_.

        Raises:
          ValueError: If there is none of that name.
        """
        known = [f"val_{name}" for name in names]
        if self.enabled and self._metric not in known:
            raise ValueError(
                f"early_stopping_metric {self._metric!r} is no metric of the model; choose one of {', '.join(known)},"
                " or add it to model.compile(metrics=...)"
            )

    def is_best(self, state: TrainingState, metrics: Mapping[str, float]) -> bool:
        """Returns whether the epoch that just ended is the best so far, and keeps that in the state."""
        if not self.enabled:
            return False
        value = metrics[self._metric]
        if math.isnan(value) or (state.best_epoch and self._sign * value >= self._sign * state.best):
            return False
        state.best, state.best_epoch = value, state.epoch
        return True

    def is_over(self, state: TrainingState) -> bool:
        """Returns whether as many epochs as the patience allows brought nothing better."""
        return self.enabled and state.epoch - state.best_epoch >= self._patience


def _more_is_better(metric: str) -> bool:
    return not metric.endswith("loss") and bool(_MORE_IS_BETTER.search(metric.lower()))
