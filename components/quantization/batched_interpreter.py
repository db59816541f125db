"""Runs a TFLite model on several examples at once, where the model allows it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.conversion import flatbuffer
from components.quantization.kernels import Kernels, load

# Examples at once: more do not run faster, and the arena grows with them.
BATCH_SIZE = 32

Arrays = dict[str, npt.NDArray[Any]]


class BatchedInterpreter:
    """The same model, resized to several examples at once."""

    def __init__(self, interpreter: Any, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        self._interpreter = interpreter
        self._inputs = inputs
        self._outputs = outputs

    @classmethod
    def load(
        cls,
        tflite: bytes,
        kernels: Kernels,
        threads: int,
        inputs: dict[str, dict[str, Any]],
        outputs: dict[str, dict[str, Any]],
    ) -> "BatchedInterpreter | None":
        """Resizes a model; None if it cannot be, or has a state, which examples at once would share."""
        if any(tensor.is_variable for tensor in flatbuffer.read_subgraphs(tflite)[0].tensors):
            return None
        interpreter = load(tflite, kernels, threads=threads)
        try:
            for detail in inputs.values():
                if not len(detail["shape"]) or detail["shape"][0] != 1:
                    return None
                interpreter.resize_tensor_input(detail["index"], [BATCH_SIZE, *detail["shape"][1:]])
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError):
            return None
        named = [{name: detail["index"] for name, detail in side.items()} for side in (inputs, outputs)]
        return cls(interpreter, *named)

    def run(self, quantized: Arrays) -> Arrays | None:
        """Runs all examples; None if the model does not do them at once."""
        count = len(next(iter(quantized.values())))
        results: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in self._outputs}
        for start in range(0, count, BATCH_SIZE):
            for name, index in self._inputs.items():
                rows = quantized[name][start : start + BATCH_SIZE]
                missing = BATCH_SIZE - len(rows)  # resized once and never again: the last rows are filled up
                full = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
                self._interpreter.set_tensor(index, full)
            try:
                self._interpreter.invoke()
            except (RuntimeError, ValueError):
                return None
            for name, index in self._outputs.items():
                results[name].append(self._interpreter.get_tensor(index))
        if any(values[0].shape[:1] != (BATCH_SIZE,) for values in results.values()):
            return None
        return {name: np.concatenate(rows)[:count] for name, rows in results.items()}
