"""Runs an integer TFLite model on float features, exactly as a device that quantizes its input would.

Inputs and outputs that are floats in the file are fed and read as they are: the file quantizes by itself.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion.interface import SIGNATURE
from components.quantization.kernels import Kernels, described, load, quantize

__all__ = ["IntegerModel", "dequantize", "quantize"]


def dequantize(values: npt.NDArray[Any], scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Returns the real values of integers, in float32 as TFLite's DEQUANTIZE kernel.

    >>> dequantize(np.array([-128, 0, 127], "int8"), scale=0.5, zero_point=-128).tolist()
    [0.0, 64.0, 127.5]
    """
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _real_values(values: npt.NDArray[Any], scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Dequantizes what is quantized; indices, such as those of an arg-max, are what they are."""
    return dequantize(values, scale, zero_point) if scale else values.astype(np.float32)


class IntegerModel:
    """A TFLite model behind float inputs and outputs. Not thread-safe: one per worker."""

    def __init__(self, tflite: bytes, kernels: Kernels = "default") -> None:
        """Loads the model.

        Args:
          tflite: A TFLite flatbuffer with signature "serving_default".
          kernels: "default" for those that an interpreter takes if nobody chooses, "optimized" for TFLite's own for
            this CPU without delegates, "reference" for its portable ones. They round differently.

        Raises:
          ValueError: If it has no such signature, or there are no such kernels.
        """
        self._interpreter = load(tflite, kernels)
        self.kernels = described(kernels, self._interpreter)
        if SIGNATURE not in self._interpreter.get_signature_list():
            raise ValueError(f"the TFLite model has no signature {SIGNATURE!r}; convert it with TFLiteIntConverter")
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._inputs: dict[str, dict[str, Any]] = runner.get_input_details()
        self._outputs: dict[str, dict[str, Any]] = runner.get_output_details()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self._inputs)

    def predict(self, features: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """Runs the model on each example in turn, as a device does.

        Args:
          features: Float arrays of shape (batch, ...) by input name; others are ignored.

        Returns:
          Float32 arrays of shape (batch, ...) by output name.

        Raises:
          ValueError: If an input is missing, has another shape than the model's, or is not a number.
        """
        quantized = {name: self._quantized(name, detail, features) for name, detail in self._inputs.items()}
        count = len(next(iter(quantized.values())))
        results: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in self._outputs}
        for row in range(count):
            self._interpreter.reset_all_variables()  # the state of an LSTM, which would go on from example to example
            for name, detail in self._inputs.items():
                self._interpreter.set_tensor(detail["index"], quantized[name][row : row + 1])
            self._interpreter.invoke()
            for name, detail in self._outputs.items():
                results[name].append(self._interpreter.get_tensor(detail["index"]))
        return {
            name: _real_values(np.concatenate(results[name]), *detail["quantization"])
            for name, detail in self._outputs.items()
        }

    def _quantized(
        self, name: str, detail: dict[str, Any], features: Mapping[str, npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        if name not in features:
            raise ValueError(f"the model's input {name!r} is no feature; there are {', '.join(sorted(features))}")
        values = np.asarray(features[name])
        expected = tuple(int(size) for size in detail["shape"][1:])
        if values.shape[1:] != expected:
            raise ValueError(f"input {name!r}: got shape {values.shape}, expected (batch, {str(expected)[1:]}")
        scale, zero_point = detail["quantization"]
        if np.issubdtype(values.dtype, np.floating) and np.isnan(values).any():
            raise ValueError(f"input {name!r} has values that are not numbers; mend them in the preprocessing_fn")
        if not scale:  # floats, and indices, such as those of an embedding
            return values.astype(detail["dtype"])
        return quantize(values, scale, zero_point, detail["dtype"])
