"""How good an integer model is: what a calibration method is chosen by."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.interpreter import IntegerModel


def accuracy(batches: Iterable[Mapping[str, npt.NDArray[Any]]], labels: npt.ArrayLike) -> Callable[[bytes], float]:
    """Returns a function that measures the share, 0..1, of examples whose class an integer model predicts.

    Args:
      batches: Features by name, (batch, ...), in the model's own units.
      labels: The classes of all those examples, in their order.

    Raises:
      ValueError: While measuring: if the model has several outputs or rows of scores, or labels are more or fewer than
        examples.
    """
    batches = tuple(batches)
    expected = np.asarray(labels).ravel()

    def measure(tflite: bytes) -> float:
        model = IntegerModel(tflite)
        rows: list[npt.NDArray[Any]] = []
        for batch in batches:
            outputs = list(model.predict(batch).values())
            if len(outputs) != 1:
                raise ValueError(
                    f"calibration: got a model with {len(outputs)} outputs, expected one to score by classes"
                )
            rows.append(outputs[0])
        scores = np.concatenate(rows)
        if len(scores) != len(expected):
            raise ValueError(f"calibration: got {len(expected)} labels for {len(scores)} examples, expected as many")
        classes = scores.shape[-1] if scores.ndim > 1 else 1
        if scores.size > len(scores) * classes:
            raise ValueError(
                f"calibration: got an output of shape {scores.shape[1:]} per example, expected one row of scores"
            )
        scores = scores.reshape(-1, classes)
        predicted = scores.argmax(-1) if classes > 1 else scores[:, 0] > 0.5
        return float(np.mean(predicted == expected))

    return measure
