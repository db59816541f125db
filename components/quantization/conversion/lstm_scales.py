"""Gives the output, the output state and the hidden values of an LSTM one scale.

Its kernel computes hidden values, and copies them to both. The converter calibrates three ranges, and makes them one
only where nothing behind wants another: a concatenation does, as that of the directions of a bidirectional layer. By
that file, state and output are off by the ratio of the scales.
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/lstm_eval.cc (LstmStepInteger8x8_16)
"""

import copy
from typing import Any

from components.quantization.conversion import flatbuffer
from components.quantization.conversion import lstm_operands as lstm
from components.quantization.conversion.tflite_schema import schema


def unified(tflite: bytes) -> tuple[bytes, int]:
    """Gives state and output of each int8 LSTM without projection the scale of its hidden values, where they differ.

    What took the output gets it by a QUANTIZE, in the scale that it had.

    Args:
      tflite: A TFLite flatbuffer.

    Returns:
      The flatbuffer, the same bytes where nothing was to be done, and how many LSTMs were changed.
    """
    if not any(op.code == lstm.SEQUENCE_LSTM for graph in flatbuffer.read_subgraphs(tflite) for op in graph.ops):
        return tflite, 0
    model = flatbuffer.read_object(tflite)
    changed = sum(_unify_graph(model, graph) for graph in model.subgraphs)
    return (flatbuffer.write_object(model) if changed else tflite), changed


def _unify_graph(model: Any, graph: Any) -> int:
    operators, changed = [], 0
    for operator in graph.operators or []:
        operators.append(operator)
        code = flatbuffer.builtin_name(model.operatorCodes[operator.opcodeIndex])
        hidden = _hidden(graph, operator) if code == lstm.SEQUENCE_LSTM else None
        if hidden is None:
            continue
        state, output = graph.tensors[operator.inputs[lstm.STATE]], graph.tensors[operator.outputs[0]]
        differ = [_grid(tensor) != _grid(hidden) for tensor in (state, output)]
        state.quantization = copy.copy(hidden.quantization)
        if differ[1]:
            operators.append(_requantize(model, graph, operator, hidden))
        changed += any(differ)
    graph.operators = operators
    return changed


def _hidden(graph: Any, operator: Any) -> Any | None:
    """The tensor with the scale of an LSTM's hidden values; None if it is none of int8 without projection."""
    inputs, intermediates = operator.inputs, operator.intermediates
    if len(inputs) not in lstm.COUNTS or inputs[lstm.PROJECTION] >= 0 or inputs[lstm.STATE] < 0:
        return None
    if intermediates is None or len(intermediates) != lstm.INTERMEDIATES:
        return None
    found = [graph.tensors[index] for index in (inputs[lstm.STATE], operator.outputs[0], intermediates[-1])]
    return found[2] if all(tensor.type == schema.TensorType.INT8 and _grid(tensor) for tensor in found) else None


def _grid(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point; None if there is none, or more than one."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return None
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


def _requantize(model: Any, graph: Any, operator: Any, hidden: Any) -> Any:
    """Gives an LSTM an output with the scale of its hidden values; returns the QUANTIZE to the output that it had."""
    old = int(operator.outputs[0])
    made = copy.copy(graph.tensors[old])
    made.name, made.quantization = made.name + b"/hidden", copy.copy(hidden.quantization)
    operator.outputs = [len(graph.tensors)]
    graph.tensors.append(made)
    names = [flatbuffer.builtin_name(code) for code in model.operatorCodes]
    if "QUANTIZE" not in names:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
        code.version = 1
        model.operatorCodes.append(code)
        names.append("QUANTIZE")
    quantize = schema.OperatorT()
    quantize.opcodeIndex = names.index("QUANTIZE")
    quantize.inputs, quantize.outputs = list(operator.outputs), [old]
    return quantize
