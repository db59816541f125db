"""Multiply-accumulate operations of the ops of a .tflite file, by the shapes of their tensors."""

import math

from components.quantization.conversion import flatbuffer


def macs(op: flatbuffer.Op, graph: flatbuffer.Subgraph) -> int:
    """Returns how often an op multiplies and adds for one inference.

    Args:
      op: An op of the graph.
      graph: The subgraph; a size that is unknown until the model runs counts as 1.

    Returns:
      0 for an op that is no convolution or product, such as a WHILE whatever its body does, and for one without the
      operands or dimensions that it must have.
    """
    try:
        return _macs(op, graph)
    except (IndexError, ZeroDivisionError):  # of a broken file
        return 0


def _macs(op: flatbuffer.Op, graph: flatbuffer.Subgraph) -> int:
    tensors = {index: graph.tensors[index] for index in (*op.inputs, *op.outputs) if index >= 0}
    shapes = {index: [1 if size < 0 else size for size in tensor.shape] for index, tensor in tensors.items()}
    output = math.prod(shapes[op.outputs[0]]) if op.outputs else 0
    if op.code == "CONV_2D":
        return output * math.prod(shapes[op.inputs[1]][1:])  # (outputs, height, width, inputs of its group)
    if op.code == "DEPTHWISE_CONV_2D":
        return output * math.prod(shapes[op.inputs[1]][1:3])  # (1, height, width, outputs)
    if op.code == "TRANSPOSE_CONV":  # the shape of the output, weights (outputs, height, width, inputs), the data
        return math.prod(shapes[op.inputs[2]]) * math.prod(shapes[op.inputs[1]][:3])
    if op.code == "FULLY_CONNECTED":
        return output * shapes[op.inputs[1]][-1]  # (outputs, inputs)
    if op.code == "BATCH_MATMUL":
        rows = shapes[op.outputs[0]][-2]
        return output * math.prod(shapes[op.inputs[0]][-2:]) // rows
    if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        # Four gates, or three, that each see the input and the state at each step; (1, steps, inputs).
        weights = [index for index in op.inputs[1:9] if index >= 0]
        return shapes[op.inputs[0]][-2] * sum(math.prod(shapes[index]) for index in weights)
    return 0
