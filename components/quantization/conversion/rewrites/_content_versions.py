"""The version that an op needs by its types, shapes and options.

An entry of the op table serves all ops of a code, so one of them raises the version of all:
https://github.com/tensorflow/tensorflow/blob/03f49db5a23ec2b22a59f3f3d72e5744469ea30b/tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc
"""

from collections.abc import Callable, Sequence
from typing import Any

from components.quantization.conversion.tflite_schema import schema

_INT8, _UINT8, _INT16 = schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16


def content_version(code: str, operator: Any, tensors: Sequence[Any]) -> int | None:
    """Returns the lowest version of an op that knows its types, shapes and options.

    Args:
      code: Its name in the schema.
      operator: The op, an `OperatorT`.
      tensors: The tensors of its subgraph, each a `TensorT`.

    Returns:
      None if that is not known here, as for floats and most ops of other widths than 8 bits.
    """
    if code not in _RULES:
        return None
    data, rule = _RULES[code]
    chosen = tensors[int(operator.inputs[data])]
    return rule(chosen.type, operator, tensors)


def _convolution(data: int, operator: Any, tensors: Sequence[Any]) -> int | None:
    filters, result = tensors[int(operator.inputs[1])], tensors[int(operator.outputs[0])]
    if {data, filters.type, result.type} != {data} or operator.builtinOptions is None:
        return None
    if filters.shape[3] != tensors[int(operator.inputs[0])].shape[3]:
        return 6
    return {_INT8: 3, _UINT8: 1}.get(data)


def _depthwise(data: int, operator: Any, tensors: Sequence[Any]) -> int | None:
    if {tensors[int(operator.inputs[1])].type, tensors[int(operator.outputs[0])].type} != {data}:
        return None
    return {_INT8: 3, _UINT8: 2}.get(data)


def _transposed_convolution(data: int, operator: Any, tensors: Sequence[Any]) -> int | None:
    options = operator.builtinOptions
    if options is None or data not in (_INT8, _UINT8) or tensors[int(operator.inputs[1])].type != data:
        return None
    if options.fusedActivationFunction != schema.ActivationFunctionType.NONE:
        return 4
    if len(operator.inputs) == 4 and operator.inputs[3] >= 0:
        return 3
    return {_INT8: 2, _UINT8: 1}.get(data)


def _quantize(data: int, operator: Any, tensors: Sequence[Any]) -> int | None:
    result = tensors[int(operator.outputs[0])]
    if result.type not in (_INT8, _UINT8, _INT16):
        return None
    if any(
        t.quantization is not None and _count(t.quantization.scale) > 1
        for t in (tensors[int(operator.inputs[0])], result)
    ):
        return 3
    return 2 if result.type == _INT16 else 1


def _transpose(data: int, operator: Any, tensors: Sequence[Any]) -> int | None:
    rank = _count(tensors[int(operator.inputs[0])].shape)
    if rank > 5:
        return None
    return 5 if data == _INT16 else 4 if rank == 5 else {_INT8: 2, _UINT8: 1}.get(data)


def _by_type(versions: dict[int, int]) -> Callable[[int, Any, Sequence[Any]], int | None]:
    return lambda data, operator, tensors: versions.get(data)


def _count(values: Any) -> int:
    return 0 if values is None else len(values)


# The place of the data among the inputs of each op, and its rule.
_RULES: dict[str, tuple[int, Callable[[int, Any, Sequence[Any]], int | None]]] = {
    "CONV_2D": (0, _convolution),
    "DEPTHWISE_CONV_2D": (0, _depthwise),
    "TRANSPOSE_CONV": (2, _transposed_convolution),
    "QUANTIZE": (0, _quantize),
    "TRANSPOSE": (0, _transpose),
    "SPLIT": (1, _by_type({_UINT8: 1, _INT8: 2, _INT16: 4})),
    "CONCATENATION": (0, _by_type({_UINT8: 1, _INT8: 2, _INT16: 3})),
    "RELU": (0, _by_type({_UINT8: 2, _INT8: 2, _INT16: 3})),
    "RELU6": (0, _by_type({_UINT8: 1, _INT8: 2, _INT16: 3})),
    "RELU_N1_TO_1": (0, _by_type({_UINT8: 1, _INT8: 1})),
}
