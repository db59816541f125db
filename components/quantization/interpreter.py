"""Runs an integer TFLite model on float features, exactly as a device that quantizes its input would.

Inputs and outputs that are floats in the file are fed and read as they are: the file quantizes by itself.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.quantization.batched_interpreter import BATCH_SIZE, Arrays, BatchedInterpreter
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.interface import SIGNATURE
from components.quantization.kernels import Kernels, described, load, quantize

__all__ = ["IntegerModel", "dequantize", "quantize"]


def dequantize(values: npt.NDArray[Any], scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Returns the real values of integers, in float32 as TFLite's DEQUANTIZE kernel.

    >>> dequantize(np.array([-128, 0, 127], "int8"), scale=0.5, zero_point=-128).tolist()
    [0.0, 64.0, 127.5]
    """
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _limits(tflite: bytes, outputs: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """The lowest and highest real value of each quantized output, also if the file itself dequantizes it."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    sources = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.code == "DEQUANTIZE"}
    limits = {}
    for name, detail in outputs.items():
        tensor = graph.tensors[sources.get(detail["index"], detail["index"])]
        if len(tensor.scale) == 1:
            ends = np.iinfo(tensor.dtype.lower())
            scale, zero_point = tensor.scale[0], tensor.zero_point[0]
            low, high = dequantize(np.array([ends.min, ends.max]), scale, zero_point)
            limits[name] = (float(low), float(high))
    return limits


def _input_limits(tflite: bytes, inputs: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """The lowest and highest real value and the step of each quantized input, also if the file itself quantizes it."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    quantized = {op.inputs[0]: op.outputs[0] for op in graph.ops if op.code == "QUANTIZE"}
    limits = {}
    for name, detail in inputs.items():
        tensor = graph.tensors[detail["index"]]
        if not tensor.scale:
            tensor = graph.tensors[quantized.get(detail["index"], detail["index"])]
        if len(tensor.scale) == 1:
            ends = np.iinfo(tensor.dtype.lower())
            low, high = dequantize(np.array([ends.min, ends.max]), tensor.scale[0], tensor.zero_point[0])
            limits[name] = (float(low), float(high), float(tensor.scale[0]))
    return limits


def _real_values(values: npt.NDArray[Any], scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Dequantizes what is quantized; indices, such as those of an arg-max, are what they are."""
    return dequantize(values, scale, zero_point) if scale else values.astype(np.float32)


def _cast(values: npt.NDArray[Any], dtype: np.dtype[Any], name: str) -> npt.NDArray[Any]:
    """Casts what is not quantized, unless integers would become others."""
    with np.errstate(invalid="ignore"):  # a float that is too large for an integer, which the comparison finds
        cast = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast.astype(values.dtype), values):
        raise ValueError(f"input {name!r}: got values that are no {dtype} numbers; give integers in its range")
    return cast


class IntegerModel:
    """A TFLite model behind float inputs and outputs. Not thread-safe: one per worker."""

    def __init__(self, tflite: bytes, kernels: Kernels = "default", threads: int = 1) -> None:
        """Loads the model.

        Args:
          tflite: A TFLite flatbuffer with signature "serving_default".
          kernels: "default" for those that an interpreter takes if nobody chooses, "optimized" for TFLite's own for
            this CPU without delegates, "reference" for its portable ones. They round differently.
          threads: How many threads several examples at once may use; one example is always run by one.

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
        self.output_limits = _limits(tflite, self._outputs)
        self.input_limits = _input_limits(tflite, self._inputs)
        self._batched = BatchedInterpreter.load(tflite, kernels, threads, self._inputs, self._outputs)
        self._batched_is_equal: bool | None = None

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self._inputs)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs by name; the first number is the batch, of 1."""
        return {name: tuple(int(size) for size in detail["shape"]) for name, detail in self._inputs.items()}

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs by name, as those of the inputs."""
        return {name: tuple(int(size) for size in detail["shape"]) for name, detail in self._outputs.items()}

    @property
    def quantized_input_names(self) -> frozenset[str]:
        """Names of the inputs that stand for real numbers by a scale; others are floats, or indices."""
        return frozenset(name for name, detail in self._inputs.items() if detail["quantization"][0])

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self._outputs)

    @property
    def runs_batched(self) -> bool:
        """Whether several examples have been run at once, with the same bits as one at a time."""
        return self._batched_is_equal is True

    def predict(self, features: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """Runs the model, with the results that a device has, which sees one example at a time.

        Several examples are run at once if the model can be resized to it, has no state, and gave the same bits as one
        at a time for the first examples and for random ones.

        Args:
          features: Float arrays of shape (batch, ...) by input name; others are ignored.

        Returns:
          Float32 arrays of shape (batch, ...) by output name.

        Raises:
          ValueError: If an input is missing, has another shape than the model's, or is not a number.
        """
        quantized = {name: self._quantized(name, detail, features) for name, detail in self._inputs.items()}
        codes = self._run(quantized)
        return {name: _real_values(codes[name], *detail["quantization"]) for name, detail in self._outputs.items()}

    def _run(self, quantized: Arrays) -> Arrays:
        count = len(next(iter(quantized.values())))
        if self._batched is None or count < 2 or self._batched_is_equal is False:
            return self._one_at_a_time(quantized)
        together = self._batched.run(quantized)
        if self._batched_is_equal is None:
            samples = ({name: values[:BATCH_SIZE] for name, values in quantized.items()}, self._random_like(quantized))
            self._batched_is_equal = all(map(self._is_equal_batched, samples))
        return together if together is not None and self._batched_is_equal else self._one_at_a_time(quantized)

    def _is_equal_batched(self, quantized: Arrays) -> bool:
        assert self._batched is not None
        together, alone = self._batched.run(quantized), self._one_at_a_time(quantized)
        return together is not None and all(np.array_equal(together[name], alone[name]) for name in alone)

    def _random_like(self, quantized: Arrays) -> Arrays:
        """Examples that differ, as the first ones of a dataset may not: random values, but given ones of indices."""
        random = np.random.default_rng(0)
        found = {}
        for name, values in quantized.items():
            shape = (BATCH_SIZE, *values.shape[1:])
            if values.dtype.kind == "f":
                found[name] = random.standard_normal(shape, np.float32).astype(values.dtype)
            elif self._inputs[name]["quantization"][0]:
                ends = np.iinfo(values.dtype)
                found[name] = random.integers(ends.min, ends.max, shape, values.dtype, endpoint=True)
            else:
                found[name] = values[random.integers(len(values), size=BATCH_SIZE)]
        return found

    def _one_at_a_time(self, quantized: Arrays) -> Arrays:
        results: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in self._outputs}
        for row in range(len(next(iter(quantized.values())))):
            self._interpreter.reset_all_variables()  # the state of an LSTM, which would go on from example to example
            for name, detail in self._inputs.items():
                self._interpreter.set_tensor(detail["index"], quantized[name][row : row + 1])
            self._interpreter.invoke()
            for name, detail in self._outputs.items():
                results[name].append(self._interpreter.get_tensor(detail["index"]))
        return {name: np.concatenate(rows) for name, rows in results.items()}

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
        if values.dtype.kind not in "fiub":
            raise ValueError(f"input {name!r}: got {values.dtype}, expected numbers")
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ValueError(f"input {name!r} has values that are not numbers; mend them in the preprocessing_fn")
        if scale:
            return quantize(values, scale, zero_point, detail["dtype"])
        return _cast(values, np.dtype(detail["dtype"]), name)  # floats, and indices, such as those of an embedding
