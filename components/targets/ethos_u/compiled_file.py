"""What a compiled file shows: which ops of the model stayed on the CPU."""

import collections

from components.quantization.conversion import flatbuffer

CUSTOM_OP = "ethos-u"


def npu_ops(tflite: bytes) -> int:
    """Returns how many ops of a file are for the NPU, each a part of the model.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    return sum(op.custom_code == CUSTOM_OP for graph in flatbuffer.read_subgraphs(tflite) for op in graph.ops)


def ops_on_npu(tflite: bytes, compiled: bytes) -> tuple[bool, ...] | None:
    """Returns for each op of a model whether Vela put it on the NPU; None if the files do not show it.

    Vela leaves ops on the CPU with the names of their outputs, and puts one op in place of each part of the others.

    Args:
      tflite: The model.
      compiled: What Vela made of it.

    Raises:
      ValueError: If either is not a TFLite flatbuffer.
    """
    source, result = flatbuffer.read_subgraphs(tflite)[0], flatbuffer.read_subgraphs(compiled)[0]
    names = collections.Counter(source.tensors[i].name for op in source.ops for i in op.outputs)
    left = {
        (op.name, tuple(result.tensors[i].name for i in op.outputs)) for op in result.ops if op.custom_code != CUSTOM_OP
    }
    keys = [(op.name, tuple(source.tensors[i].name for i in op.outputs)) for op in source.ops]
    if any(count > 1 for count in names.values()) or not left <= set(keys):
        return None
    return tuple(key not in left for key in keys)
