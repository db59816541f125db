"""A grouped CONV_2D, as one DEPTHWISE_CONV_2D or as one CONV_2D per group between a SPLIT and a CONCATENATION.

Each output channel sees the same integers, weights, bias and scale as before. TensorFlow's own kernels agree to the
bit in XNNPACK and in the reference kernels; without either, it runs a grouped convolution by the reference kernel and
the others by the optimized one, which rounds a few results to the neighbouring step:
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/conv.cc
"""

import copy
import dataclasses
from typing import Any

import numpy as np

from components.quantization.conversion.rewrites._editor import GraphEditor
from components.quantization.conversion.tflite_schema import schema

CODES = ("CONV_2D",)
_CHANNEL_AXIS = 3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Groups:
    """A grouped convolution: indices of its tensors, the number of groups, and the channels of one; no bias is -1."""

    data: int
    filters: int
    bias: int
    result: int
    count: int
    inputs: int
    outputs: int


def replacement(editor: GraphEditor, operator: Any) -> list[Any] | None:
    """Returns the ops of the groups; None for widths other than 8 bits and computed weights."""
    groups = _groups(editor, operator)
    if groups is None:
        return None
    if groups.inputs == 1:
        return [_depthwise(editor, groups, operator.builtinOptions)]
    return _split(editor, groups, operator.builtinOptions)


def _groups(editor: GraphEditor, operator: Any) -> _Groups | None:
    data, filters, bias = (*operator.inputs, -1)[:3]
    weights = editor.constant(filters)
    if (
        weights is None
        or not editor.is_8_bit(data)
        or not editor.is_8_bit(filters)
        or (bias >= 0 and editor.constant(bias) is None)
    ):
        return None
    outputs, inputs = weights.shape[0], weights.shape[_CHANNEL_AXIS]
    count, rest = divmod(editor.shape(data)[_CHANNEL_AXIS], inputs)
    if count < 2 or rest or outputs % count:
        return None
    return _Groups(
        data=data,
        filters=filters,
        bias=bias,
        result=operator.outputs[0],
        count=count,
        inputs=inputs,
        outputs=outputs // count,
    )


def _depthwise(editor: GraphEditor, groups: _Groups, old: Any) -> Any:
    """One input channel per group: the weights of a depthwise convolution but for the order of their dimensions."""
    weights = editor.constant(groups.filters)
    assert weights is not None  # _groups has checked
    quantization = copy.copy(editor.tensor(groups.filters).quantization)
    quantization.quantizedDimension = _CHANNEL_AXIS
    name = f"{editor.name(groups.filters)}/depthwise"
    filters = editor.add_constant(name, weights.transpose(3, 1, 2, 0), quantization)
    options = schema.DepthwiseConv2DOptionsT()
    for option in ("padding", "strideW", "strideH", "fusedActivationFunction", "dilationWFactor", "dilationHFactor"):
        setattr(options, option, getattr(old, option))
    options.depthMultiplier = groups.outputs
    return editor.operator("DEPTHWISE_CONV_2D", [groups.data, filters, groups.bias], [groups.result], options)


def _split(editor: GraphEditor, groups: _Groups, options: Any) -> list[Any]:
    name = editor.name(groups.result)
    axis = editor.add_constant(f"{name}/split_axis", np.array(_CHANNEL_AXIS, np.int32))
    names = [f"{name}/group_{number}" for number in range(groups.count)]
    data_shape, result_shape = editor.shape(groups.data)[:-1], editor.shape(groups.result)[:-1]
    parts = [editor.add_like(groups.data, f"{of}/input", (*data_shape, groups.inputs)) for of in names]
    results = [editor.add_like(groups.result, of, (*result_shape, groups.outputs)) for of in names]
    split, join = schema.SplitOptionsT(), schema.ConcatenationOptionsT()
    split.numSplits, join.axis = groups.count, _CHANNEL_AXIS
    operators = [editor.operator("SPLIT", [axis, groups.data], parts, split)]
    for number, of in enumerate(names):
        chosen = slice(number * groups.outputs, (number + 1) * groups.outputs)
        filters = editor.channels(groups.filters, f"{of}/weights", chosen)
        bias = editor.channels(groups.bias, f"{of}/bias", chosen) if groups.bias >= 0 else -1
        operators.append(editor.operator("CONV_2D", [parts[number], filters, bias], [results[number]], options))
    return [*operators, editor.operator("CONCATENATION", results, [groups.result], join)]
