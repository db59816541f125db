"""Signal, noise and use of the integers, layer by layer."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.attribution.codes import CodeCounts, Noise
from components.quantization.conversion import flatbuffer
from components.quantization.kernels import KernelInterpreter, real_values
from components.quantization.qat.quantize import in_floats
from components.quantization.qat.tensor_matching import probes
from components.quantization.surgery.graph import Call, calls

Features = dict[str, npt.NDArray[Any]]

# Activations of a layer that an op with weights computes as well, and the ops of those that are ops of their own.
_FUSED = ("linear", "relu", "relu6")
_OF_ACTIVATION = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC", "tanh": "TANH"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LayerSignal:
    """What became of the values of one layer.

    Attributes:
      name: The layer, or "output" and the output's name.
      tensor: Its tensor in the .tflite.
      sqnr_db: Ratio of signal to difference of the integers from what they are compared with, in dB: from the
        quantization-aware model, or from the float model if there is no other. Differences of earlier layers are in it.
      max_lsb: The largest difference in steps of the integers.
      quantization_sqnr_db: The same ratio of the quantization-aware model from itself with quantization switched off,
        which is what quantization costs with the same weights; None if there is no such model.
      saturation: Share, 0..1, of the values at either end of the integers' range; NaN for floats. A ReLU has its zeros
        there.
      utilisation: Share, 0..1, of the integers that occur; NaN for floats, and where there are fewer values.
      bits: Width of the integers, 8 or 16.
      histogram: How many of the values lie in each of 32 equal parts of the integers' range, the smallest first; empty
        for floats.
    """

    name: str
    tensor: str
    sqnr_db: float
    max_lsb: float
    quantization_sqnr_db: float | None
    saturation: float
    utilisation: float
    bits: int
    histogram: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    name: str
    symbolic: Any
    tensor: flatbuffer.Tensor


class LayerSums:
    """Compares a Keras model, tensor by tensor, with its .tflite, over batches."""

    def __init__(self, model: tf_keras.Model, interpreter: KernelInterpreter, quantized: bool) -> None:
        """Finds which tensor is which.

        Args:
          model: A functional model.
          interpreter: Keeps its tensors, and names inputs and outputs as the model does.
          quantized: Whether the model has FakeQuantize layers; else tensors are found by the names of float layers.
        """
        self._model, self._interpreter, self._quantized = model, interpreter, quantized
        pairs, self.unmatched = _quantized_pairs(model, interpreter) if quantized else _float_pairs(model, interpreter)
        self._pairs = pairs
        self._probes = tf_keras.Model(model.inputs, [pair.symbolic for pair in pairs])
        self._noise = [Noise() for _ in pairs]
        self._quantization = [Noise() for _ in pairs]
        self._counts = [CodeCounts(pair.tensor) for pair in pairs]

    def add(self, features: Features) -> None:
        """Runs a batch, its features by the names of the inputs."""
        expected = self._values(features)
        if self._quantized:
            with in_floats(self._model):
                in_full = self._values(features)
            for noise, floats, values in zip(self._quantization, in_full, expected, strict=True):
                noise.add(floats, values)
        for row in range(len(expected[0])):
            self._interpreter.run({name: array[row : row + 1] for name, array in features.items()})
            for pair, values, noise, counts in zip(self._pairs, expected, self._noise, self._counts, strict=True):
                codes = self._interpreter.codes(pair.tensor)
                counts.add(codes)
                noise.add(values[row], real_values(codes, pair.tensor))

    def results(self) -> tuple[LayerSignal, ...]:
        """Returns one entry for each tensor, in the order of the model."""
        return tuple(
            LayerSignal(
                name=pair.name,
                tensor=pair.tensor.name,
                sqnr_db=noise.sqnr_db,
                max_lsb=noise.largest / (pair.tensor.scale[0] if pair.tensor.scale else 1.0),
                quantization_sqnr_db=quantization.sqnr_db if self._quantized else None,
                saturation=counts.saturation,
                utilisation=counts.utilisation,
                bits=16 if pair.tensor.dtype == "INT16" else 8,
                histogram=counts.histogram,
            )
            for pair, noise, quantization, counts in zip(
                self._pairs, self._noise, self._quantization, self._counts, strict=True
            )
        )

    def _values(self, features: Features) -> list[npt.NDArray[Any]]:
        inputs = [tf.constant(features[name]) for name in self._model.input_names]
        found = tf.nest.flatten(self._probes(inputs, training=False))
        return [values.numpy() for values in found]


def _quantized_pairs(model: tf_keras.Model, interpreter: KernelInterpreter) -> tuple[Sequence[_Pair], tuple[str, ...]]:
    found = probes(model, interpreter.graph.tensors, interpreter.inputs, interpreter.outputs)
    pairs = [_Pair(name=p.name, symbolic=p.symbolic, tensor=p.tensor) for p in found if p.tensor is not None]
    return pairs, tuple(probe.name for probe in found if probe.tensor is None)


def _float_pairs(model: tf_keras.Model, interpreter: KernelInterpreter) -> tuple[Sequence[_Pair], tuple[str, ...]]:
    """Pairs layers with the tensors that are named after them; of layers fused into one tensor, the last has it."""
    made: dict[str, Call] = {}
    repeated: set[str] = set()
    for call in calls(model):
        repeated |= {call.layer.name} & set(made)
        made[call.layer.name] = call
    results = {id(tensor) for tensor in model.outputs}
    of_layer = dict(_named_layers({name: call for name, call in made.items() if name not in repeated}, interpreter))
    pairs = [
        _Pair(name=name, symbolic=call.outputs[0], tensor=of_layer[name])
        for name, call in made.items()
        if name in of_layer and id(call.outputs[0]) not in results
    ]
    pairs += [
        _Pair(name=f"output {name}", symbolic=symbolic, tensor=interpreter.outputs[name])
        for name, symbolic in zip(model.output_names, model.outputs, strict=True)
    ]
    missing = (name for name, call in made.items() if name not in of_layer and id(call.outputs[0]) not in results)
    return pairs, tuple(missing)


def _named_layers(made: dict[str, Call], interpreter: KernelInterpreter) -> Iterator[tuple[str, flatbuffer.Tensor]]:
    """Yields layers and their tensors in the order of the ops; of several tensors of a layer, its result comes last.

    The converter lists what was fused into a tensor, its last op first; what stands behind may have lent a constant.
    """
    for op in interpreter.graph.ops:
        for tensor in (interpreter.graph.tensors[index] for index in op.outputs):
            named = flatbuffer.name_parts(tensor.name.partition(";")[0]) & set(made)
            for name in named if len(named) == 1 else ():
                size = tf.TensorShape(made[name].outputs[0].shape[1:]).num_elements()
                if size == math.prod(tensor.shape) and _is_activated(made[name].layer, op.code):
                    yield name, tensor


def _is_activated(layer: Any, op: str) -> bool:
    """Whether an op computes what a layer returns, not what its activation is called with."""
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return activation in _FUSED or _OF_ACTIVATION.get(activation) == op
