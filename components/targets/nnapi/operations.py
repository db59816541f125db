"""Which ops TFLite's delegate maps to the Neural Networks API, and since which API level of Android.

The delegate's own checks:
https://github.com/tensorflow/tensorflow/blob/002e5f47fa2ea99aa910ba83e66240c0cda8ff8a/tensorflow/lite/delegates/nnapi/nnapi_delegate.cc
(`NNAPIDelegateKernel::Validate`). Where Android has an operation later than the delegate asks for, Android's level
counts: https://developer.android.com/ndk/reference/group/neural-networks
"""

import dataclasses

# API levels of Android 8.1, 9, 10, 11 and 12: feature levels 1 to 5 of NNAPI.
API_LEVELS = (27, 28, 29, 30, 31)
# The first with signed asymmetric 8-bit tensors, ANEURALNETWORKS_TENSOR_QUANT8_ASYMM_SIGNED.
FIRST_LEVEL_OF_INT8 = 30
FIRST_LEVEL_OF_CHANNELS = 29

# An op a line: its name, the first API level, the highest version that the delegate knows (0: any), and types of its
# first operand: F for floats, Q for INT8 and UINT8, I for INT32, B for BOOL.
_TABLE = """
ABS 29 1 F
ADD 27 2 FQI
ARG_MAX 29 2 FQI
ARG_MIN 29 2 FQI
AVERAGE_POOL_2D 27 2 FQ
BATCH_TO_SPACE_ND 28 2 FQ
BIDIRECTIONAL_SEQUENCE_LSTM 29 1 F
CAST 29 1 FQI
CONCATENATION 27 2 FQ
CONV_2D 27 3 FQ
DEPTHWISE_CONV_2D 27 3 FQ
DEPTH_TO_SPACE 27 0 FQ
DEQUANTIZE 27 2 Q
DIV 28 1 F
ELU 30 1 F
EQUAL 29 2 FQIB
EXP 29 1 F
EXPAND_DIMS 29 1 FQI
FILL 30 1 I
FLOOR 27 1 F
FULLY_CONNECTED 27 5 FQ
GATHER 29 2 FQI
GREATER 29 2 FQIB
GREATER_EQUAL 29 2 FQIB
HARD_SWISH 27 0 FQ
L2_NORMALIZATION 27 2 FQ
L2_POOL_2D 27 1 F
LEAKY_RELU 29 1 FQ
LESS 29 2 FQIB
LESS_EQUAL 29 2 FQIB
LOCAL_RESPONSE_NORMALIZATION 27 1 F
LOG 29 1 F
LOGICAL_AND 29 1 B
LOGICAL_NOT 29 1 B
LOGICAL_OR 29 1 B
LOGISTIC 27 2 FQ
LOG_SOFTMAX 29 1 F
MAXIMUM 29 3 FQI
MAX_POOL_2D 27 2 FQ
MEAN 28 2 FQ
MINIMUM 29 3 FQI
MUL 27 2 FQI
NEG 29 2 FI
NOT_EQUAL 29 2 FQIB
PACK 30 2 FQI
PAD 28 2 FQ
PADV2 29 2 FQ
POW 29 1 F
PRELU 29 1 FQ
QUANTIZE 29 2 FQ
REDUCE_ANY 29 2 B
REDUCE_MAX 29 2 FQ
REDUCE_MIN 29 2 FQ
REDUCE_PROD 29 1 F
RELU 27 2 FQ
RELU6 27 2 FQ
RELU_N1_TO_1 27 2 FQ
RESHAPE 27 1 FQ
RESIZE_BILINEAR 27 3 FQ
RESIZE_NEAREST_NEIGHBOR 29 3 FQ
RNN 27 1 F
RSQRT 29 1 F
SELECT 29 2 B
SIN 29 1 F
SLICE 29 2 FQI
SOFTMAX 27 2 FQ
SPACE_TO_BATCH_ND 28 2 FQ
SPACE_TO_DEPTH 27 2 FQ
SPLIT 29 3 FQI
SQRT 29 1 F
SQUEEZE 28 1 FQ
STRIDED_SLICE 28 2 FQ
SUB 28 3 FQI
SUM 29 1 F
SVDF 28 1 F
TANH 27 2 FQ
TILE 29 1 FQI
TOPK_V2 29 2 FQI
TRANSPOSE 28 2 FQ
TRANSPOSE_CONV 29 3 FQ
UNIDIRECTIONAL_SEQUENCE_LSTM 29 2 F
UNIDIRECTIONAL_SEQUENCE_RNN 29 1 F
"""
_TYPES = {"F": ("FLOAT16", "FLOAT32"), "Q": ("INT8", "UINT8"), "I": ("INT32",), "B": ("BOOL",)}
# Quantized data of these came later than the op.
QUANTIZED_SINCE = {"MEAN": 29, "PAD": 29, "RESIZE_BILINEAR": 29, "SUB": 29, "TANH": 29, "L2_NORMALIZATION": 29}
INT32_SINCE = {"ADD": 30, "MUL": 30, "SUB": 30}
# Operands that must be constants, by position.
CONSTANTS = {
    "EXPAND_DIMS": (1,),
    "FILL": (0,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SPLIT": (0,),
    "TOPK_V2": (1,),
    "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """What the delegate maps of one op.

    Attributes:
      level: The first API level.
      version: The highest version; 0 for any.
      dtypes: Types of its first operand.
    """

    level: int
    version: int
    dtypes: tuple[str, ...]


def _parsed(table: str) -> dict[str, Support]:
    rows = (line.split() for line in table.strip().splitlines())
    return {
        code: Support(
            level=int(level), version=int(version), dtypes=tuple(dtype for kind in kinds for dtype in _TYPES[kind])
        )
        for code, level, version, kinds in rows
    }


SUPPORTED = _parsed(_TABLE)


def support_rows() -> list[tuple[str, ...]]:
    """Returns the rows of the table of ops on the support page."""
    return [
        (
            code,
            str(op.level),
            str(op.version or "any"),
            ", ".join(op.dtypes),
            str(max(op.level, FIRST_LEVEL_OF_INT8)) if "INT8" in op.dtypes else "",
        )
        for code, op in SUPPORTED.items()
    ]
