"""Ops that Vela 5.2.0 has for each NPU, as `vela --supported-ops-report` lists them."""

OPS = frozenset(
    {
        "ABS",
        "ADD",
        "ARG_MAX",
        "AVERAGE_POOL_2D",
        "BATCH_MATMUL",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "ELU",
        "EXP",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "GELU",
        "HARD_SWISH",
        "LEAKY_RELU",
        "LOG",
        "LOGISTIC",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MEAN",
        "MINIMUM",
        "MIRROR_PAD",
        "MUL",
        "NEG",
        "PACK",
        "PAD",
        "PADV2",
        "PRELU",
        "QUANTIZE",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "RELU",
        "RELU6",
        "RELU_0_TO_1",
        "RELU_N1_TO_1",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "REVERSE_V2",
        "RSQRT",
        "SLICE",
        "SOFTMAX",
        "SPLIT",
        "SPLIT_V",
        "SQUARED_DIFFERENCE",
        "SQUEEZE",
        "STRIDED_SLICE",
        "SUB",
        "SUM",
        "TANH",
        "TILE",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UNPACK",
    }
)
"""Of every NPU."""

OPS_OF_U85 = OPS | frozenset(
    {
        "ASSIGN_VARIABLE",
        "CAST",
        "DIV",
        "EQUAL",
        "GATHER",
        "GREATER",
        "GREATER_EQUAL",
        "LESS",
        "LESS_EQUAL",
        "LOGICAL_AND",
        "LOGICAL_NOT",
        "LOGICAL_OR",
        "NOT_EQUAL",
        "READ_VARIABLE",
        "REDUCE_ALL",
        "REDUCE_ANY",
        "SCATTER_ND",
        "SELECT",
        "SELECT_V2",
    }
)
"""Of Ethos-U85."""

PARTLY_CHECKED = frozenset(
    {
        "BATCH_MATMUL",
        "GATHER",
        "REVERSE_V2",
        "SCATTER_ND",
        "STRIDED_SLICE",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
    }
)
"""Documented with constraints that no rule here checks."""

OF_32_BITS = frozenset(
    {
        "ADD",
        "ARG_MAX",
        "BATCH_MATMUL",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "MIRROR_PAD",
        "MUL",
        "NEG",
        "RESHAPE",
        "SQUEEZE",
        "SUB",
        "SUM",
        "TRANSPOSE",
    }
)
"""Taken by Ethos-U55 and U65 with feature maps of 32 bits."""

UNQUANTIZED = frozenset(
    {
        "ARG_MAX",
        "EXPAND_DIMS",
        "MIRROR_PAD",
        "PAD",
        "PADV2",
        "QUANTIZE",
        "TRANSPOSE",
    }
)
"""Taken without scales."""

WITH_CONSTANTS = frozenset(
    {
        "MEAN",
        "MIRROR_PAD",
        "PAD",
        "PADV2",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SLICE",
        "STRIDED_SLICE",
        "TRANSPOSE",
    }
)
"""Whose parameters have to be constants."""
