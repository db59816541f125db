"""Whether the integer model computes what the quantization-aware model does, tensor by tensor, on real examples."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.representative_dataset import Batch, named_arrays
from components.quantization.kernels import KernelInterpreter, Kernels, real_values, require_known
from components.quantization.qat.tensor_matching import Probe, probes

# A delegate keeps no intermediate tensors.
_KERNELS = ("reference", "optimized")
# The input of each op that holds its weights.
_WEIGHTS = {
    "CONV_2D": 1,
    "CONV_3D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "PRELU": 1,
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TensorParity:
    """How far one tensor is from its fake-quantized original.

    Attributes:
      name: What computes it: the layer before a FakeQuantize, or "output" and the output's name.
      tensor: Its name in the .tflite.
      sqnr_db: Ratio of signal to difference in dB; inf if there is no difference.
      max_lsb: The largest difference, in steps of the integers.
      bits: Width of the integers, 8 or 16.
    """

    name: str
    tensor: str
    sqnr_db: float
    max_lsb: float
    bits: int = 8


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WeightScales:
    """The scales of the weights of one op.

    Attributes:
      op: Its name, for example "CONV_2D".
      op_index: Its index in the main subgraph.
      dtype: Type of the weights, for example "INT8".
      scales: How many scales they have: 1, or one per channel.
      names: The parts of the names of its weights, bias and output; its layer is usually one of them.
    """

    op: str
    op_index: int
    dtype: str
    scales: int
    names: frozenset[str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """What a comparison found.

    Attributes:
      tensors: One entry for each call of a FakeQuantize and for each output, in the order of the model.
      unmatched: Names of those that no tensor of the .tflite was found for.
      agreement: Share, 0..1, of examples whose largest value is at the same place, by output with several values.
      weights: The scales of weights.
      examples: How many examples were compared.
    """

    tensors: tuple[TensorParity, ...]
    unmatched: tuple[str, ...]
    agreement: dict[str, float]
    weights: tuple[WeightScales, ...]
    examples: int

    def first_over(self, max_lsb: float) -> TensorParity | None:
        """Returns the first tensor that differs by more steps than that, of 8 bits each; None if there is none."""
        return next((t for t in self.tensors if not t.max_lsb <= max_lsb * 2 ** (t.bits - 8)), None)

    def __str__(self) -> str:
        """A table of the tensors, one a line, then the outputs and what was not found."""
        width = max((len(tensor.name) for tensor in self.tensors), default=0)
        lines = [f"{'name'.ljust(width)}  {'SQNR dB':>8}  {'max LSB':>8}  tensor"]
        lines += [f"{t.name.ljust(width)}  {t.sqnr_db:8.1f}  {t.max_lsb:8.2f}  {t.tensor}" for t in self.tensors]
        lines += [f"top-1 agreement of {name}: {share:.1%}" for name, share in self.agreement.items()]
        if self.unmatched:
            lines.append(f"no tensor found for {', '.join(self.unmatched)}")
        return "\n".join(lines)


def parity(model: tf_keras.Model, tflite: bytes, examples: Iterable[Batch], kernels: Kernels = "optimized") -> Parity:
    """Compares a quantization-aware model at inference with the integer model that was converted from it.

    Differences add up from the inputs to the outputs, as they do on a device: each tensor is that of a run of the whole
    model.

    Args:
      model: A functional tf_keras model with FakeQuantize layers, trained.
      tflite: Its conversion, with signature "serving_default".
      examples: Batches of float32 inputs in the model's own units, each an array of shape (batch, ...) or, for several
        inputs, a dict from input name to such an array.
      kernels: "reference" for TFLite's reference kernels, "optimized" for its own of this CPU; the default ones keep no
        intermediate tensors.

    Raises:
      ValueError: If the .tflite is not of this model, or the examples do not fit it.
    """
    require_known(kernels, _KERNELS)
    interpreter = KernelInterpreter(tflite, kernels, keep_tensors=True)
    found = probes(model, interpreter.graph.tensors, interpreter.inputs, interpreter.outputs)
    matched = [_Comparison(probe, probe.tensor) for probe in found if probe.tensor is not None]
    keras = tf_keras.Model(model.inputs, [comparison.probe.symbolic for comparison in matched])
    signature = {
        name: tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype)
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }
    count = 0
    for batch in examples:
        arrays = named_arrays(batch, signature, "examples")
        expected = tf.nest.flatten(keras([arrays[name] for name in model.input_names], training=False))
        for row in range(len(expected[0])):
            interpreter.run({name: array[row : row + 1] for name, array in arrays.items()})
            for comparison, values in zip(matched, expected, strict=True):
                got = real_values(interpreter.codes(comparison.tensor), comparison.tensor)
                comparison.add(values[row].numpy(), got)
        count += len(expected[0])
    if not count:
        raise ValueError("examples: got none, expected at least one")
    return Parity(
        tensors=tuple(comparison.result() for comparison in matched),
        unmatched=tuple(probe.name for probe in found if probe.tensor is None),
        agreement={c.probe.output: c.agreeing / c.places for c in matched if c.probe.output and c.places},
        weights=weight_scales(tflite),
        examples=count,
    )


def weight_scales(tflite: bytes) -> tuple[WeightScales, ...]:
    """Returns the scales of the weights of every op that has constant weights, in the order of the ops."""
    graph = flatbuffer.read_subgraphs(tflite)[0]
    found = []
    for op in graph.ops:
        if op.code not in _WEIGHTS:
            continue
        weights = graph.tensors[op.inputs[_WEIGHTS[op.code]]]
        if weights.constant is None or not weights.scale:
            continue
        named = (weights, *(graph.tensors[i] for i in (*op.inputs[2:], *op.outputs)))
        names = frozenset(part for tensor in named for part in flatbuffer.name_parts(tensor.name))
        found.append(
            WeightScales(op=op.code, op_index=op.index, dtype=weights.dtype, scales=len(weights.scale), names=names)
        )
    return tuple(found)


class _Comparison:
    """The sums over examples for one tensor."""

    def __init__(self, probe: Probe, tensor: flatbuffer.Tensor) -> None:
        self.probe = probe
        self.tensor = tensor
        self.agreeing = self.places = 0
        self._signal = self._noise = self._largest = 0.0

    def add(self, expected: npt.NDArray[Any], got: npt.NDArray[np.float64]) -> None:
        """Adds one example."""
        expected = expected.astype(np.float64)
        got = got.reshape(expected.shape)
        difference = got - expected
        self._signal += float(np.sum(expected**2))
        self._noise += float(np.sum(difference**2))
        self._largest = max(self._largest, float(np.max(np.abs(difference), initial=0.0)))
        if expected.ndim and expected.shape[-1] > 1:
            agreeing = np.argmax(expected, axis=-1) == np.argmax(got, axis=-1)
            self.agreeing += int(np.sum(agreeing))
            self.places += int(np.size(agreeing))

    def result(self) -> TensorParity:
        """Returns what was found."""
        if self._noise == 0.0:
            sqnr_db = math.inf
        else:
            sqnr_db = 10.0 * math.log10(self._signal / self._noise) if self._signal else -math.inf
        step = self.tensor.scale[0] if self.tensor.scale else 1.0
        return TensorParity(
            name=self.probe.name,
            tensor=self.tensor.name,
            sqnr_db=sqnr_db,
            max_lsb=self._largest / step,
            bits=16 if self.tensor.dtype == "INT16" else 8,
        )
