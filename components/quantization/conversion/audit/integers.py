"""Rules of integer-only computation."""

from collections.abc import Iterator

from components.quantization.conversion.audit.rules import CHANNEL_AXIS, OF_REAL_NUMBERS, QUANTIZED, Found, Place, Rule
from components.quantization.conversion.flatbuffer import Tensor

INTEGER_DTYPES = frozenset({"INT4", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL"})
# What an op may hand on without computing in it: handles of variables are read and assigned, nothing more.
_STATE_DTYPES = frozenset({"RESOURCE", "VARIANT"})
_STATE_OPS = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "IF", "WHILE"})
FLOAT_EDGE = Rule(
    name="float-edge",
    kind="integer",
    text="Inputs and outputs of the model are integers.",
    fix="convert with an integer type of inputs and outputs",
)
FLOAT_TENSOR = Rule(
    name="float-tensor",
    kind="integer",
    text="What ops read and compute is INT4, INT8, UINT8, INT16, INT32, INT64 or BOOL: no floats, no text.",
    fix="train or calibrate a range for it, replace the layer, or cut the model before it",
)
FLOAT_CONSTANT = Rule(
    name="float-constant",
    kind="integer",
    text="No constant is of floats, whether an op uses it or not.",
    fix="quantize the layer that holds it",
)
HYBRID = Rule(
    name="hybrid-op",
    kind="integer",
    text="No op computes floats from integer weights.",
    fix="quantize activations too: an integer scheme, with a representative dataset for a float model",
)
DEQUANTIZE = Rule(
    name="dequantize",
    kind="integer",
    text="No value is turned from integers into floats.",
    fix="quantize what follows it, or convert with integer outputs",
)
FAKE_QUANT = Rule(
    name="fake-quant",
    kind="integer",
    text="No fake quantization is left.",
    fix="convert with an integer scheme, so that the converter replaces it",
)
FLEX = Rule(
    name="flex-op",
    kind="integer",
    text="No op needs TensorFlow itself (names that begin with Flex).",
    fix="replace it in the model by ops that TFLite has, or cut the model before it",
)
CUSTOM = Rule(
    name="custom-op",
    kind="integer",
    text="Custom ops are those that the target's runtime brings.",
    fix="replace it in the model by builtin ops, cut it off, or audit with a target whose runtime brings it",
)
STABLEHLO = Rule(
    name="stablehlo-op",
    kind="integer",
    text="No op is one of StableHLO: runtimes of devices have none.",
    fix="convert without StableHLO",
)
UNKNOWN = Rule(
    name="unknown-op",
    kind="integer",
    text="Every op is one that the schema names, of version 1 at least.",
    fix="convert with the TensorFlow of this project, or use a newer one here",
)
WIDE_RESULT = Rule(
    name="unquantized-result",
    kind="integer",
    text="Results that stand for real numbers are 8 or 16 bits wide.",
    fix="quantize the layer's output",
)
RULES = (
    *(FLOAT_EDGE, FLOAT_TENSOR, FLOAT_CONSTANT, HYBRID, DEQUANTIZE, FAKE_QUANT, FLEX, CUSTOM, STABLEHLO, UNKNOWN),
    WIDE_RESULT,
)


def check(place: Place) -> Iterator[Found]:
    """Yields what breaks the rules of an op."""
    yield from _op_itself(place)
    floats = [t for t in (*place.inputs, *place.outputs) if not _is_integer(t, place)]
    weights = place.operand(1)
    if place.op.code in CHANNEL_AXIS and weights is not None and weights.dtype in QUANTIZED and floats:
        yield Found(rule=HYBRID, tensor=None, reason=f"computes {floats[0].dtype} from {weights.dtype} weights")
    for tensor in floats:
        if tensor.constant is not None:
            yield Found(rule=FLOAT_CONSTANT, tensor=tensor, reason=f"constant tensor is {tensor.dtype}")
        else:
            yield Found(rule=FLOAT_TENSOR, tensor=tensor, reason=f"computed tensor is {tensor.dtype}")
    if place.op.code in OF_REAL_NUMBERS:
        for tensor in place.outputs:
            if tensor.dtype in INTEGER_DTYPES - QUANTIZED:
                yield Found(rule=WIDE_RESULT, tensor=tensor, reason=f"{place.op.code} computes {tensor.dtype}")


def edge(tensor: Tensor, side: str) -> Iterator[Found]:
    """Yields whether an input or output of the model is no integer."""
    if tensor.dtype not in INTEGER_DTYPES:
        yield Found(rule=FLOAT_EDGE, tensor=tensor, reason=f"{side} of the model is {tensor.dtype}")


def unused(tensor: Tensor) -> Iterator[Found]:
    """Yields whether a tensor that no op uses holds floats. One without values is no memory and no computation."""
    if tensor.constant is not None and tensor.dtype not in INTEGER_DTYPES:
        yield Found(rule=FLOAT_CONSTANT, tensor=tensor, reason=f"constant that no op uses is {tensor.dtype}")


def _is_integer(tensor: Tensor, place: Place) -> bool:
    return tensor.dtype in INTEGER_DTYPES or (tensor.dtype in _STATE_DTYPES and place.op.code in _STATE_OPS)


def _op_itself(place: Place) -> Iterator[Found]:
    op = place.op
    if op.code == "CUSTOM" and not place.is_compiled:
        flex = op.custom_code.startswith("Flex")
        reason = "is an op of TensorFlow" if flex else "is not a TFLite builtin"
        yield Found(rule=FLEX if flex else CUSTOM, tensor=None, reason=reason)
    elif op.code == "DEQUANTIZE":
        yield Found(rule=DEQUANTIZE, tensor=None, reason="turns integers into floats")
    elif op.code == "FAKE_QUANT":
        yield Found(rule=FAKE_QUANT, tensor=None, reason="computes in floats")
    elif op.code.startswith("STABLEHLO_"):
        yield Found(rule=STABLEHLO, tensor=None, reason="is no op of TFLite's runtimes on devices")
    elif op.code.startswith("BUILTIN_") or op.version < 1:
        yield Found(rule=UNKNOWN, tensor=None, reason=f"version {op.version} is an op that the schema does not name")
