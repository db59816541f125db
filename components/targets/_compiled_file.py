"""What a compiled file shows: which ops of the model stayed on the CPU. A log may give only their numbers."""

import collections

from components.quantization.conversion import flatbuffer


def compiled_parts(tflite: bytes, custom_op: str) -> int:
    """Returns how many ops of a file are for the target, each a part of the model.

    Args:
      tflite: The file.
      custom_op: Name of the custom op that the target's compiler puts in place of others.

    Raises:
      ValueError: If the bytes are not a TFLite flatbuffer.
    """
    return sum(op.custom_code == custom_op for graph in flatbuffer.read_subgraphs(tflite) for op in graph.ops)


def require_uncompiled(tflite: bytes, custom_op: str) -> None:
    """Checks that a file is a model, not what the target's compiler made of one, of which rules say nothing.

    Args:
      tflite: The file.
      custom_op: As of `compiled_parts`.

    Raises:
      ValueError: If the file has such an op, or is not a TFLite flatbuffer.
    """
    parts = compiled_parts(tflite, custom_op)
    if parts:
        raise ValueError(
            f"the file is compiled already: got {parts} ops {custom_op}, expected none; inspect the model that it was"
            " compiled of"
        )


def ops_on_target(tflite: bytes, compiled: bytes, custom_op: str) -> tuple[bool, ...] | None:
    """Returns for each op of a model whether the compiler put it on the target; None if the files do not show it.

    A compiler leaves ops on the CPU with the names of their outputs, and puts one op in place of each part of the
    others.

    Args:
      tflite: The model.
      compiled: What the compiler made of it.
      custom_op: As of `compiled_parts`.

    Raises:
      ValueError: If either is not a TFLite flatbuffer.
    """
    source, result = flatbuffer.read_subgraphs(tflite)[0], flatbuffer.read_subgraphs(compiled)[0]
    names = collections.Counter(source.tensors[i].name for op in source.ops for i in op.outputs)
    left = {
        (op.name, tuple(result.tensors[i].name for i in op.outputs)) for op in result.ops if op.custom_code != custom_op
    }
    keys = [(op.name, tuple(source.tensors[i].name for i in op.outputs)) for op in source.ops]
    if any(count > 1 for count in names.values()) or not left <= set(keys):
        return None
    return tuple(key not in left for key in keys)
