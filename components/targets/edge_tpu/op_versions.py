"""Which versions of ops each compiler takes: above the highest that its TensorFlow reads, it refuses the whole model.

Releases of TensorFlow Lite that versions of ops came with are those of
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/compiler/mlir/lite/tools/versioning/runtime_version.cc
"""

from components.quantization.conversion.tflite_schema import schema
from components.targets.edge_tpu.generations import SUPPORTED, Generation

# The release in work when each compiler was built, by the dates of the builds. What compilers are known to have refused
# (RESIZE_BILINEAR 3 by 2.0, RESIZE_NEAREST_NEIGHBOR 3 by 2.1, REVERSE_V2 3 by 15.0, CONV_2D 6, TRANSPOSE_CONV 4 and
# QUANTIZE 3 by 16.0) came later, and all that is in compiled models in public came before.
# A release is a number here, 206 for 2.6; 1.15 and 2.0 were cut together.
_RELEASES = {(1, 0): 114, (2, 0): 200, (2, 1): 202, (14, 1): 203, (15, 0): 204, (16, 0): 206}
# By op, the first version that came after release 1.14, and the releases of it and of those that follow, up to 2.6:
# (4, 203, 204) says that version 4 came with 2.3, 5 with 2.4, and none with 2.5 or 2.6.
_LATER: dict[str, tuple[int, ...]] = {
    "ABS": (2, 204, 205, 206),
    "ADD": (3, 204, 206),
    "ARG_MAX": (3,),
    "ARG_MIN": (3,),
    "AVERAGE_POOL_2D": (3, 203),
    "BATCH_MATMUL": (1, 203, 203, 204, 205),
    "BATCH_TO_SPACE_ND": (3, 203),
    "CAST": (2,),
    "CONCATENATION": (3, 203),
    "CONV_2D": (4, 203, 204),
    "CUMSUM": (1, 204),
    "DEPTHWISE_CONV_2D": (4, 202, 203, 203),
    "DEPTH_TO_SPACE": (1, 201, 205),
    "DEQUANTIZE": (3, 115, 202),
    "DIV": (2, 203),
    "EQUAL": (3, 203),
    "EXP": (2,),
    "EXPAND_DIMS": (2,),
    "FULLY_CONNECTED": (5, 200, 201, 203, 203, 203),
    "GATHER": (3, 115, 204, 205),
    "GATHER_ND": (2, 203, 205),
    "GELU": (1,),
    "HARD_SWISH": (1, 115),
    "L2_NORMALIZATION": (3,),
    "LEAKY_RELU": (2, 203),
    "LOGISTIC": (3, 203),
    "MAXIMUM": (3, 203, 203),
    "MAX_POOL_2D": (3, 203),
    "MEAN": (3, 204),
    "MINIMUM": (3, 203, 203),
    "MIRROR_PAD": (2, 203),
    "MUL": (3, 115, 203, 206),
    "NOT_EQUAL": (3, 203),
    "PACK": (3, 203),
    "PAD": (3, 204, 206),
    "PADV2": (3, 204, 206),
    "PRELU": (2,),
    "QUANTIZE": (2, 115),
    "REDUCE_MAX": (3, 205),
    "REDUCE_MIN": (3, 205),
    "RELU": (2, 201, 205),
    "RELU6": (3, 205),
    "RELU_N1_TO_1": (2,),
    "RESHAPE": (2,),
    "RESIZE_BILINEAR": (3, 202, 205),
    "RESIZE_NEAREST_NEIGHBOR": (3, 203, 204),
    "REVERSE_V2": (2, 202, 205),
    "RSQRT": (2, 205),
    "SELECT_V2": (1, 202),
    "SLICE": (4, 204, 205),
    "SOFTMAX": (3, 203),
    "SPACE_TO_BATCH_ND": (3, 203),
    "SPACE_TO_DEPTH": (3,),
    "SPLIT": (4, 203),
    "SPLIT_V": (2, 203),
    "SQUARED_DIFFERENCE": (2, 205),
    "SQUEEZE": (2, 205),
    "STRIDED_SLICE": (3, 201, 202, 205, 206),
    "SUB": (3, 203, 204, 204),
    "SUM": (2, 115),
    "TANH": (3, 203),
    "TILE": (2, 202),
    "TRANSPOSE": (3, 115, 203, 204),
    "TRANSPOSE_CONV": (2, 202, 203),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (3, 203),
    "UNPACK": (3, 202, 203),
}


# Versions that TensorFlow reads and the compiler refuses. FULLY_CONNECTED 9 is documented nowhere.
_HIGHEST_MAPPED = {"FULLY_CONNECTED": 8, "RELU": 1}
# Compilers before 16 refuse half-pixel centers, which came with version 3.
_HIGHEST_MAPPED_BEFORE_16 = {"RESIZE_BILINEAR": 2, "RESIZE_NEAREST_NEIGHBOR": 2}
_FIRST_COMPILER_OF_HALF_PIXELS = (16, 0)


# The op with the highest number that the schema of each release has: what is above is no op to it.
_NEWEST = {114: "ROUND", 200: "WHILE", 202: "SEGMENT_SUM", 203: "BATCH_MATMUL", 204: "CUMSUM", 206: "BROADCAST_ARGS"}


def highest_readable(code: str, generation: Generation) -> int | None:
    """Returns the highest version of an op that a compiler's TensorFlow reads, 0 for none; None if that is not known.

    Args:
      code: Name of the op's builtin code.
      generation: The compiler.
    """
    release = _release(generation)
    if _number(code) > _number(_NEWEST[release]):
        return 0
    if code not in _LATER:
        return None
    first, *releases = _LATER[code]
    return first - 1 + sum(came <= release for came in releases)


def highest_mapped(code: str, generation: Generation) -> int | None:
    """Returns the highest version of an op that a compiler may map; None if that is not known."""
    if generation.compiler < _FIRST_COMPILER_OF_HALF_PIXELS and code in _HIGHEST_MAPPED_BEFORE_16:
        return _HIGHEST_MAPPED_BEFORE_16[code]
    return _HIGHEST_MAPPED.get(code, highest_readable(code, generation))


def support_rows() -> tuple[tuple[str, str, str, str, str], ...]:
    """Returns the rows of the page of supported ops: op, first runtime, known and highest version, known size."""
    newest = Generation.of("16.0")
    rows = []
    for code, support in SUPPORTED.items():
        highest = highest_mapped(code, newest)
        known = f"{support.elements:,}" if support.elements else "not known"
        rows.append(
            (code, str(support.runtime), str(support.version or "not known"), str(highest or "not known"), known)
        )
    return tuple(rows)


def release_name(generation: Generation) -> str:
    """Returns the release of TensorFlow that a compiler reads models with, such as "2.6"."""
    return _name(_release(generation))


def releases() -> tuple[tuple[str, str], ...]:
    """Returns each compiler that is known with the release that it reads models with."""
    return tuple((f"{major}.{minor}", _name(release)) for (major, minor), release in _RELEASES.items())


def _number(code: str) -> int:
    """The number of a builtin op; one that the schema here has no name for has its number in place of it."""
    number = getattr(schema.BuiltinOperator, code, None)
    return int(code.rpartition("_")[2]) if number is None else int(number)


def _name(release: int) -> str:
    major, minor = divmod(release, 100)
    return f"{major}.{minor}"


def _release(generation: Generation) -> int:
    return _RELEASES[max(version for version in _RELEASES if version <= generation.compiler)]
