"""Rules of tensors whose values are two to a byte."""

from collections.abc import Iterator

from components.quantization.conversion.audit.rules import QUANTIZED, Found, Place, Rule, weighted

# By op and type of its input, the version that came with a kernel of INT4 weights. Other kernels refuse them or, worse,
# read two weights as one: as CONV_2D does beside INT16 and UINT8.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/conv.cc
_WEIGHTS = {
    ("CONV_2D", "INT8"): 7,
    ("DEPTHWISE_CONV_2D", "INT8"): 7,
    ("FULLY_CONNECTED", "INT8"): 10,
    ("FULLY_CONNECTED", "INT16"): 13,
}
# Ops that move or convert INT4 values, and the version that came with it.
_MOVES = {"CAST": 6, "DEQUANTIZE": 6, "EMBEDDING_LOOKUP": 4, "GATHER": 7, "QUANTIZE": 4, "TRANSPOSE": 7}

KERNEL = Rule(
    name="int4-kernel",
    kind="numeric",
    text="INT4 values are weights of CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED, or moved, in a version for INT4.",
    fix="quantize this tensor to 8 bits",
)
RULES = (KERNEL,)


def check(place: Place) -> Iterator[Found]:
    """Yields what breaks the rules of an op."""
    op, weights = place.op, next(weighted(place), None)
    for index in dict.fromkeys((*op.inputs, *op.outputs)):
        tensor = place.graph.tensors[index]
        if tensor.dtype != "INT4":
            continue
        needed, beside = _MOVES.get(op.code), ""
        if weights is not None and tensor is weights[1]:
            source = weights[0].dtype
            if source not in QUANTIZED:
                continue  # a hybrid op, or an offender of another rule
            needed, beside = _WEIGHTS.get((op.code, source)), f" beside {source}"
        if needed is None or op.version < needed:
            reason = f"{op.code} version {op.version} has no kernel for INT4{beside}"
            suffix = "" if needed is None else f", version {needed} has"
            yield Found(rule=KERNEL, tensor=tensor, reason=reason + suffix)
