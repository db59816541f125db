"""Ops that hand integers on as they are, whose inputs and outputs therefore share one scale."""

# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/quantization_spec.md
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/compiler/mlir/lite/ir/tfl_ops.td
# (SameOperandsAndResultsScale).
OPS = frozenset(
    {
        *("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH"),
        *("DEPTH_TO_SPACE", "PAD", "PADV2", "MIRROR_PAD", "GATHER", "GATHER_ND", "BATCH_TO_SPACE_ND", "TILE"),
        *("SPACE_TO_BATCH_ND", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V"),
        *("PACK", "UNPACK", "REVERSE_V2", "BROADCAST_TO", "REDUCE_MAX", "REDUCE_MIN", "SELECT", "SELECT_V2"),
        "CONCATENATION",
    }
)
