"""Single layers with 16-bit inputs and outputs in a model of 8 bits.

TensorFlow's converter makes no runnable op of them, so it is given 8 bits everywhere, with the trained ranges; here the
tensors that were trained with 16 bits get them. Between the widths stands a QUANTIZE from 16 to 8 bits, and from 8 to
16, which that kernel does not know, a CAST to 32 bits and a QUANTIZE to 16:
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/quantize.cc
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from components.quantization.conversion import flatbuffer
from components.quantization.conversion.tflite_schema import schema

# The place of the data and of the bias among the inputs of each op, and the version that knows 16-bit data:
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/tools/versioning/op_version.cc
_OPS: dict[str, tuple[int, int | None, int]] = {
    "CONV_2D": (0, 2, 4),
    "DEPTHWISE_CONV_2D": (0, 2, 5),
    "FULLY_CONNECTED": (0, 2, 7),
    "TRANSPOSE_CONV": (2, 3, 3),
    "SOFTMAX": (0, None, 3),
    "LOGISTIC": (0, None, 3),
    "TANH": (0, None, 3),
}
_FIXED_SCALE = 2.0**-15  # of the outputs of softmax, logistic and tanh
_PRESCRIBED = ("SOFTMAX", "LOGISTIC", "TANH")
_QUANTIZE_VERSION, _CAST_VERSION = 2, 2
# An 8-bit value minus its zero point has 9 bits, so that 128 steps of 16 bits make one of 8, exactly.
_STEPS = 128
_TOLERANCE = 1e-5  # of a scale: float32 arithmetic


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WideTensor:
    """A tensor that was trained with 16 bits.

    Attributes:
      layer: The layer that makes it.
      minimum: Lower end of its 8-bit range.
      maximum: Upper end of its 8-bit range.
    """

    layer: str
    minimum: float
    maximum: float

    @property
    def scale(self) -> float:
        """The scale that it has in 8 bits."""
        return (self.maximum - self.minimum) / 255.0

    @property
    def zero_point(self) -> int:
        """The zero point that it has in 8 bits, -128 to 127."""
        return round(min(max(-self.minimum / self.scale, 0.0), 255.0)) - 128


def widen(tflite: bytes, tensors: Sequence[WideTensor]) -> bytes:
    """Gives the tensors of an 8-bit model that were trained with 16 bits their width.

    Args:
      tflite: The model in 8 bits.
      tensors: What was trained with 16.

    Returns:
      The flatbuffer with these tensors, and the biases of the ops that make them, widened, and their neighbours
      requantized.

    Raises:
      ValueError: If a tensor is not found, or an op that makes one has no kernel for 16 bits.
    """
    model = flatbuffer.read_object(tflite)
    _Widening(model, model.subgraphs[0]).run(tensors)
    return flatbuffer.write_object(model)


class _Widening:
    """The change of the main subgraph of one model."""

    def __init__(self, model: Any, graph: Any) -> None:
        self._model = model
        self._graph = graph
        for operator in graph.operators:
            operator.inputs, operator.outputs = ([int(i) for i in side] for side in (operator.inputs, operator.outputs))
        self._edges = [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]
        self._producers = {i: operator for operator in graph.operators for i in operator.outputs}
        self._narrow_scales: dict[int, tuple[float, int]] = {}
        self._copies: dict[int, int] = {}

    def run(self, wanted: Sequence[WideTensor]) -> None:
        found = [self._find(tensor) for tensor in wanted]
        # Equal layers are one op.
        makers = {id(maker): maker for maker in (self._maker(i) for i in found if i not in self._edges[0])}
        for index in found:
            self._widen(index)
        self._widen_reshapes()
        for maker in makers.values():
            self._widen_op(maker)
        self._narrow_for_others(set(makers))

    def _find(self, wanted: WideTensor) -> int:
        """The index of the tensor; of several of one layer the last is its result."""
        fitting = [index for index, tensor in enumerate(self._graph.tensors) if self._fits(index, tensor, wanted)]
        named = [i for i in fitting if wanted.layer in flatbuffer.name_parts(self._graph.tensors[i].name.decode())]
        edges = [i for i in fitting if i in (*self._edges[0], *self._edges[1])]
        for candidates in (named[-1:], edges, fitting):
            if len(candidates) == 1:
                return candidates[0]
        raise ValueError(
            f"scheme: the tensor that layer {wanted.layer!r} makes was trained with 16 bits, and {len(fitting)} of the"
            " converted model have its range, expected one; choose other layers for 'int16_activations'"
        )

    def _fits(self, index: int, tensor: Any, wanted: WideTensor) -> bool:
        if tensor.type != schema.TensorType.INT8 or index in self._narrow_scales or not self._is_computed(index):
            return False
        quantization = tensor.quantization
        return (
            quantization is not None
            and quantization.scale is not None
            and len(quantization.scale) == 1
            and math.isclose(quantization.scale[0], wanted.scale, rel_tol=_TOLERANCE)
            and abs(int(quantization.zeroPoint[0]) - wanted.zero_point) <= 1  # a tie may be rounded either way
        )

    def _is_computed(self, index: int) -> bool:
        if index in self._edges[0]:
            return True
        operator = self._producers.get(index)
        return operator is not None and self._code(operator) in (*_OPS, "RESHAPE")

    def _code(self, operator: Any) -> str:
        return flatbuffer.builtin_name(self._model.operatorCodes[operator.opcodeIndex])

    def _maker(self, index: int) -> Any:
        """The op that computes a tensor, which a reshape may follow; what is in between is widened."""
        operator = self._producers[index]
        while self._code(operator) == "RESHAPE":
            self._widen(operator.inputs[0])
            operator = self._producers[operator.inputs[0]]
        if self._code(operator) not in _OPS:
            raise ValueError(
                f"{self._code(operator)} has no kernel that takes a model of 8 bits to 16, got it for tensor"
                f" {self._graph.tensors[index].name.decode()!r}; expected one of {', '.join(_OPS)}"
            )
        self._widen(operator.outputs[0])
        return operator

    def _widen(self, index: int) -> None:
        """Makes a tensor one of 16 bits that reaches as far as its 8 bits did to the farther side."""
        if index in self._narrow_scales:
            return
        tensor = self._graph.tensors[index]
        scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        self._narrow_scales[index] = scale, zero_point
        operator = self._producers.get(index)
        prescribed = operator is not None and self._code(operator) in _PRESCRIBED
        wide = scale * max(128 + zero_point, 127 - zero_point) / 32767.0
        _set_type(tensor, schema.TensorType.INT16, _FIXED_SCALE if prescribed else wide, 0)

    def _widen_op(self, operator: Any) -> None:
        """Gives an op inputs and a bias for 16 bits."""
        data, bias, version = _OPS[self._code(operator)]
        index = operator.inputs[data]
        if index in self._narrow_scales:
            before = self._narrow_scales[index][0]
        else:
            before = float(self._graph.tensors[index].quantization.scale[0])
            operator.inputs[data] = index = self._widened_copy(index)
        after = float(self._graph.tensors[index].quantization.scale[0])
        if bias is not None and len(operator.inputs) > bias and operator.inputs[bias] >= 0:
            operator.inputs[bias] = self._fine_bias(operator.inputs[bias], before / after)
        operator.opcodeIndex = self._opcode(self._code(operator), version)

    def _widen_reshapes(self) -> None:
        """Widens what is a widened tensor but for its shape."""
        for operator in self._graph.operators:
            if self._code(operator) == "RESHAPE" and operator.inputs[0] in self._narrow_scales:
                self._widen(operator.outputs[0])

    def _fine_bias(self, index: int, steps: float) -> int:
        """A bias in smaller steps, as integers of 64 bits."""
        old = self._graph.tensors[index]
        values = np.frombuffer(bytes(bytearray(self._model.buffers[old.buffer].data)), "<i4")
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.rint(values * steps).astype("<i8").tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        new = self._copy(index, "int16_bias")
        tensor = self._graph.tensors[new]
        tensor.buffer = len(self._model.buffers) - 1
        tensor.type = schema.TensorType.INT64
        tensor.quantization.scale = (np.asarray(old.quantization.scale, np.float64) / steps).astype(np.float32)
        return new

    def _widened_copy(self, index: int) -> int:
        """An 8-bit tensor in 16 bits, the same real values, made right behind it and once for all who take it."""
        if index in self._copies:
            return self._copies[index]
        scale = float(self._graph.tensors[index].quantization.scale[0])
        zero_point = int(self._graph.tensors[index].quantization.zeroPoint[0])
        cast, wide = self._copy(index, "int32"), self._copy(index, "int16")
        _set_type(self._graph.tensors[cast], schema.TensorType.INT32, scale, zero_point)
        _set_type(self._graph.tensors[wide], schema.TensorType.INT16, scale / _STEPS, 0)
        at = self._position(self._producers[index]) + 1 if index in self._producers else 0
        self._graph.operators.insert(at, self._operator("CAST", _CAST_VERSION, index, cast))
        self._graph.operators.insert(at + 1, self._operator("QUANTIZE", _QUANTIZE_VERSION, cast, wide))
        self._copies[index] = wide
        return wide

    def _narrow_for_others(self, makers: set[int]) -> None:
        """Gives ops of 8 bits an 8-bit copy of each widened tensor that they take."""
        for index, (scale, zero_point) in list(self._narrow_scales.items()):
            others = [
                operator
                for operator in self._graph.operators
                if index in operator.inputs and not self._takes_wide(operator, makers)
            ]
            if not others:
                continue
            copy = self._copy(index, "int8")
            _set_type(self._graph.tensors[copy], schema.TensorType.INT8, scale, zero_point)
            at = min(map(self._position, others))
            self._graph.operators.insert(at, self._operator("QUANTIZE", _QUANTIZE_VERSION, index, copy))
            for operator in others:
                operator.inputs = [copy if i == index else i for i in operator.inputs]

    def _takes_wide(self, operator: Any, makers: set[int]) -> bool:
        return id(operator) in makers or all(i in self._narrow_scales for i in operator.outputs)

    def _position(self, operator: Any) -> int:
        return next(place for place, other in enumerate(self._graph.operators) if other is operator)

    def _copy(self, index: int, suffix: str) -> int:
        old = self._graph.tensors[index]
        new = schema.TensorT()
        new.name = f"{old.name.decode()}/{suffix}".encode()
        new.shape, new.shapeSignature, new.hasRank = old.shape, old.shapeSignature, old.hasRank
        new.quantization = schema.QuantizationParametersT()
        new.quantization.scale, new.quantization.zeroPoint = old.quantization.scale, old.quantization.zeroPoint
        new.quantization.quantizedDimension = old.quantization.quantizedDimension
        self._graph.tensors.append(new)
        return len(self._graph.tensors) - 1

    def _operator(self, name: str, version: int, source: int, result: int) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._opcode(name, version)
        operator.inputs, operator.outputs = [source], [result]
        return operator

    def _opcode(self, name: str, version: int) -> int:
        for place, code in enumerate(self._model.operatorCodes):
            if flatbuffer.builtin_name(code) == name and code.version == version:
                return place
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1


def _set_type(tensor: Any, dtype: int, scale: float, zero_point: int) -> None:
    tensor.type = dtype
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero_point], np.int64)
    tensor.quantization.min = tensor.quantization.max = None
