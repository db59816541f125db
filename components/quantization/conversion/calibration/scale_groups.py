"""Tensors of a calibrated file that must share one range, since the ops between them only move values about."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from components.quantization.conversion import flatbuffer, same_scale
from components.quantization.conversion.tflite_schema import schema

# MAXIMUM and MINIMUM are left to the converter, which takes the range of their result: a clip narrows the range of what
# it clips.
SAME_SCALE = same_scale.OPS | {"DYNAMIC_UPDATE_SLICE", "TOPK_V2"}
# Ops whose output has a scale by specification, whatever its range.
# https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
_FIXED_SCALE = frozenset({"L2_NORMALIZATION", "LOGISTIC", "LOG_SOFTMAX", "SOFTMAX", "TANH"})
# Ops next to a tensor whose range was trained.
_TRAINED = frozenset({"DEQUANTIZE", "FAKE_QUANT", "QUANTIZE"})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScaleGroup:
    """Tensors that share one range, which is the union of those of their origins.

    Attributes:
      tensors: Indices of all tensors of the group.
      origins: Those that are not copied from others of the group, whose values are looked at.
      whole: Those origins that keep all of their range: inputs of the model, and outputs of ops of a fixed scale.
      constants: Ranges of constants that are mixed in.
    """

    tensors: tuple[int, ...]
    origins: tuple[int, ...]
    whole: frozenset[int]
    constants: tuple[tuple[float, float], ...]


def calibrated_range(tensor: Any) -> tuple[float, float] | None:
    """Returns the smallest and largest value that a `TensorT` had in calibration; None if it was not calibrated."""
    quantization = tensor.quantization
    if tensor.type != schema.TensorType.FLOAT32 or quantization is None:
        return None
    lower, upper = quantization.min, quantization.max
    if lower is None or upper is None or len(lower) != 1 or len(upper) != 1:
        return None
    return float(lower[0]), float(upper[0])


def scale_groups(model: Any) -> tuple[ScaleGroup, ...]:
    """Returns the groups of the main subgraph whose ranges may be replaced, each at least one computed tensor.

    Left out are tensors with a trained range, those of ops that have a state, such as an LSTM, whose inner ranges hang
    together, and all that share a scale with such ones.

    Args:
      model: A calibrated `ModelT`.
    """
    return _Graph(model).groups()


class _Graph:
    """The ops of a calibrated file and the tensors that have a range."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._graph = model.subgraphs[0]
        self._ranges = [calibrated_range(tensor) for tensor in self._graph.tensors]
        self._inputs = {int(index) for index in self._graph.inputs}
        self._makers = {
            index: (code, operator) for code, operator in self._operators() for index in self._ranged(operator.outputs)
        }

    def groups(self) -> tuple[ScaleGroup, ...]:
        frozen = self._frozen()
        members: dict[int, list[int]] = {}
        for index, root in enumerate(self._roots()):
            if self._ranges[index] is not None:
                members.setdefault(root, []).append(index)
        return tuple(
            self._group(tensors)
            for tensors in members.values()
            if not frozen & set(tensors) and not set(tensors) <= self._inputs
        )

    def _operators(self) -> Iterator[tuple[str, Any]]:
        for operator in self._graph.operators:
            yield flatbuffer.builtin_name(self._model.operatorCodes[operator.opcodeIndex]), operator

    def _ranged(self, indices: Iterable[int] | None) -> list[int]:
        """Those tensors that were calibrated."""
        return [index for index in _given(indices) if self._ranges[index] is not None]

    def _frozen(self) -> set[int]:
        found: set[int] = set()
        for code, operator in self._operators():
            if code in _TRAINED:
                found.update(self._ranged(operator.inputs))
            stateful = any(self._graph.tensors[index].isVariable for index in _given(operator.inputs))
            if code in _TRAINED or stateful:
                found.update(self._ranged(operator.outputs))
        return found

    def _roots(self) -> list[int]:
        """For each tensor the first of those that it shares a range with."""
        parents = list(range(len(self._ranges)))

        def root(index: int) -> int:
            while parents[index] != index:
                parents[index] = parents[parents[index]]
                index = parents[index]
            return index

        for code, operator in self._operators():
            if code in SAME_SCALE:
                linked = sorted(root(i) for i in (*self._ranged(operator.inputs), *self._ranged(operator.outputs)))
                for index in linked[1:]:
                    parents[root(index)] = root(linked[0])
        return [root(index) for index in range(len(parents))]

    def _group(self, tensors: list[int]) -> ScaleGroup:
        origins, whole, constants = [], set(), []
        for index in tensors:
            code, operator = self._makers.get(index, ("", None))
            limits = self._ranges[index]
            if code in SAME_SCALE and limits is not None and self._ranged(operator.inputs):
                constants += list(self._constants(operator, limits))
                continue
            origins.append(index)
            if code in _FIXED_SCALE or index in self._inputs:
                whole.add(index)
        return ScaleGroup(
            tensors=tuple(tensors), origins=tuple(origins), whole=frozenset(whole), constants=tuple(constants)
        )

    def _constants(self, operator: Any, limits: tuple[float, float]) -> Iterator[tuple[float, float]]:
        """Ranges of the float constants that an op takes, as far as they came through to its output."""
        for index in _given(operator.inputs):
            tensor = self._graph.tensors[index]
            data = self._model.buffers[tensor.buffer].data
            if tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data):
                values = np.clip(np.frombuffer(bytes(bytearray(data)), "<f4"), *limits)
                yield float(values.min()), float(values.max())


def _given(indices: Iterable[int] | None) -> list[int]:
    """The tensors of an op, without optional ones that are left out."""
    return [int(index) for index in (indices if indices is not None else ()) if index >= 0]
