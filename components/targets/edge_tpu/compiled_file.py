"""What a compiled file shows: which ops of the model stayed on the CPU. The log gives only their numbers."""

import collections

from components.quantization.conversion import flatbuffer

CUSTOM_OP = "edgetpu-custom-op"


def has_custom_op(tflite: bytes) -> bool:
    """Whether a file has an op for the Edge TPU.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    return any(op.custom_code == CUSTOM_OP for graph in flatbuffer.read_subgraphs(tflite) for op in graph.ops)


def ops_on_tpu(tflite: bytes, compiled: bytes) -> tuple[bool, ...] | None:
    """Returns for each op of a model whether the compiler mapped it; None if the files do not show it.

    The compiler leaves ops on the CPU as they are, their tensors by name, and puts one op in place of the others.

    Args:
      tflite: The model.
      compiled: What the compiler made of it.

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
