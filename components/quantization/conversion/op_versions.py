"""What the version of an op in a .tflite file demands of the program that reads the file.

Why an op gets a version:
https://github.com/tensorflow/tensorflow/blob/03f49db5a23ec2b22a59f3f3d72e5744469ea30b/tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc
"""

import dataclasses
from collections.abc import Iterable

from components.quantization.conversion.op_runtimes import RUNTIMES


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VersionProblem:
    """Why a device's parser refuses an op.

    Attributes:
      reason: The op, its version, what that version means, the TensorFlow it needs and the newest one that the device
        knows.
      fix: What to change so that the op is not needed.
    """

    reason: str
    fix: str


def minimum_runtime(code: str, version: int) -> tuple[int, int, int] | None:
    """Returns the first TensorFlow whose runtime knows an op, as (major, minor, patch).

    Args:
      code: The name of a builtin op in the schema.
      version: Its version.

    Returns:
      None if the table knows no such pair: it is newer than the table, or TensorFlow itself left it out.

    >>> minimum_runtime("CONV_2D", 6)
    (2, 9, 0)
    """
    return RUNTIMES.get((code, version))


def is_known(code: str, version: int, runtime: tuple[int, int, int]) -> bool:
    """Returns whether the runtime of a TensorFlow knows an op.

    Args:
      code: The name of a builtin op in the schema; custom ops have no such versions, and are known.
      version: Its version.
      runtime: The TensorFlow, as (major, minor, patch).

    >>> is_known("CONV_2D", 5, (2, 6, 0)), is_known("CONV_2D", 6, (2, 6, 0))
    (True, False)
    """
    needed = minimum_runtime(code, version)
    return code == "CUSTOM" or (needed is not None and needed <= runtime)


def minimum_runtime_of_all(ops: Iterable[tuple[str, int]]) -> str:
    """Returns the first TensorFlow that knows all these pairs of code and version; pairs not in the table are left out.

    This is what a .tflite file holds as the metadata `min_runtime_version`.

    >>> minimum_runtime_of_all([("CONV_2D", 3), ("ADD", 3), ("CUSTOM", 1)])
    '2.4.0'
    """
    known = [runtime for op in ops if (runtime := minimum_runtime(*op)) is not None]
    return ".".join(str(number) for number in max(known)) if known else ""


_INT4 = "use a scheme with 8-bit weights"
_INT16 = "use a scheme with 8-bit activations for this layer"
_RANK = "reshape to fewer dimensions around the op in the model"
_WIDE_BIAS = "an int16 op with another bias type than int64"
_EDGE = "keep the values as they are, without converting their type in the model"

# What a version means and what to do about it, for those that models meet.
_CAUSES: dict[tuple[str, int], tuple[str, str]] = {
    ("CONV_2D", 4): ("an int16 convolution", _INT16),
    ("CONV_2D", 5): ("a float convolution of int8 weights with a scale per channel", "use an integer scheme"),
    ("CONV_2D", 6): (
        "a grouped convolution",
        "the converter splits it into one CONV_2D per group where its weights are 8-bit constants;"
        " otherwise build the groups in the model: split, convolve, concatenate",
    ),
    ("CONV_2D", 7): ("a convolution with 4-bit weights", _INT4),
    ("CONV_2D", 8): (_WIDE_BIAS, "use the converter's default bias type"),
    ("DEPTHWISE_CONV_2D", 7): ("a depthwise convolution with 4-bit weights", _INT4),
    ("FULLY_CONNECTED", 10): ("a Dense layer with 4-bit weights", _INT4),
    ("FULLY_CONNECTED", 11): (_WIDE_BIAS, "use the converter's default bias type"),
    ("FULLY_CONNECTED", 12): (
        "a float Dense layer of int8 weights with a scale per channel",
        "use an integer scheme, or turn per-channel Dense off",
    ),
    ("FULLY_CONNECTED", 13): ("an int16 Dense layer with 4-bit weights", _INT4),
    ("FULLY_CONNECTED", 14): ("a Dense layer with 2-bit weights", "use a scheme with 8-bit weights"),
    ("TRANSPOSE_CONV", 4): (
        "a transposed convolution with a fused activation",
        "the converter moves the activation into an op of its own where it is a ReLU or ReLU6 of 8 bits; otherwise"
        " put a layer between the two in the model",
    ),
    ("TRANSPOSE_CONV", 5): (_WIDE_BIAS, "use the converter's default bias type"),
    ("QUANTIZE", 3): (
        "a quantization with a scale per channel, computed when the model runs",
        "make the tensor a constant of the model, so that the converter quantizes it, or use full_int8_per_tensor",
    ),
    ("QUANTIZE", 4): ("a quantization to 4 bits", _INT4),
    ("DEQUANTIZE", 5): (
        "a dequantization with a scale per channel",
        "use an integer scheme, so that the weights are not made floats when the model runs",
    ),
    ("DEQUANTIZE", 6): ("a dequantization of 4 bits", _INT4),
    ("EXP", 2): ("an integer exponential", "replace exp in the model by softmax, sigmoid or tanh, which are known"),
    ("LOG", 2): ("an integer logarithm", "leave the logarithm to the program that reads the output"),
    ("SQRT", 2): ("an integer square root", "replace sqrt(x) by x * rsqrt(x) in the model"),
    ("RSQRT", 3): ("an int16 reciprocal square root", _INT16),
    ("GELU", 1): ("a float GELU", "replace GELU in the model by relu, relu6 or x * sigmoid(1.702 * x)"),
    ("GELU", 2): ("an integer GELU", "replace GELU in the model by relu, relu6 or x * sigmoid(1.702 * x)"),
    ("RELU_0_TO_1", 1): ("a clip to [0, 1]", "replace it in the model by relu6, or by minimum and maximum"),
    ("SIGN", 1): ("a sign", "replace sign(x) in the model by a clip of x times a large factor to [-1, 1]"),
    ("ADD", 5): ("an addition of plain int16 numbers", _EDGE),
    ("MUL", 6): ("a multiplication of complex numbers", "multiply real and imaginary parts in the model"),
    ("MUL", 7): ("a multiplication of plain int16 or uint32 numbers", _EDGE),
    ("CAST", 2): ("a conversion of uint32", _EDGE),
    ("CAST", 3): ("a conversion of int8", _EDGE),
    ("CAST", 4): ("a conversion of uint16", _EDGE),
    ("CAST", 5): ("a conversion of float16 or float64", _EDGE),
    ("CAST", 6): ("a conversion of 4-bit integers", _INT4),
    ("TILE", 3): ("a tiling of int8", "concatenate the tensor with itself in the model"),
    ("TRANSPOSE", 6): ("a transposition of 6 dimensions", _RANK),
    ("TRANSPOSE", 7): ("a transposition of 4-bit integers", _INT4),
    ("TRANSPOSE", 8): ("a transposition of more than 6 dimensions", _RANK),
    ("STRIDED_SLICE", 7): ("a slice of uint32", _EDGE),
    ("STRIDED_SLICE", 8): ("a slice whose end is an offset from its begin", "slice with constant begin and end"),
    ("SLICE", 6): ("a slice of uint32", _EDGE),
    ("CONCATENATION", 4): ("a concatenation of uint32", _EDGE),
    ("PACK", 4): ("a stack of uint32", _EDGE),
    ("SELECT", 3): ("a selection among 5 dimensions", _RANK),
    ("SELECT", 4): ("a selection among uint32", _EDGE),
    ("SELECT_V2", 2): ("a selection among uint32", _EDGE),
    ("SPACE_TO_BATCH_ND", 4): ("an int16 space-to-batch", _INT16),
    ("BATCH_TO_SPACE_ND", 4): ("an int16 batch-to-space", _INT16),
    ("MIRROR_PAD", 3): ("an int16 mirror padding", _INT16),
    ("GATHER", 6): ("a gather with int16 indices", "use int32 indices"),
    ("GATHER", 7): ("a gather from 4-bit integers", _INT4),
    ("EMBEDDING_LOOKUP", 4): (
        "an embedding of 4-bit weights or with a scale per row",
        "use full_int8_per_tensor, or look the embedding up before the model",
    ),
    ("ARG_MAX", 3): ("an argmax of bool", "take the argmax of numbers"),
    ("ARG_MIN", 3): ("an argmin of bool", "take the argmin of numbers"),
    ("UNIDIRECTIONAL_SEQUENCE_LSTM", 4): ("an LSTM with diagonal recurrent weights", "use a plain LSTM layer"),
    ("UNIDIRECTIONAL_SEQUENCE_LSTM", 5): ("an int16 LSTM", _INT16),
    ("LSTM", 5): ("an int16 LSTM", _INT16),
    ("WHERE", 2): ("a search for non-zero numbers", "compare with 0 in the model first"),
}


def cause(code: str, version: int) -> str:
    """Returns what the version of an op means, as a noun phrase.

    >>> cause("TRANSPOSE_CONV", 4)
    'a transposed convolution with a fused activation'
    """
    if (code, version) in _CAUSES:
        return _CAUSES[code, version][0]
    return "an op of its own" if version == 1 else "a later form of the op, for other types, ranks or options"


def workaround(code: str, version: int) -> str:
    """Returns what to change in a model so that it does not need this version of an op."""
    if (code, version) in _CAUSES:
        return _CAUSES[code, version][1]
    if version == 1:
        return f"replace {code} in the model by ops that the device knows"
    return f"replace what becomes {code} in the model, or give it the types and ranks of an earlier version"
