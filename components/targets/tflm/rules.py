"""The rules by which TensorFlow Lite for Microcontrollers runs an op; statuses are its own words where it has any."""

from collections.abc import Sequence

from components.quantization.conversion.flatbuffer import Subgraph
from components.targets._control_flow import subgraphs_run_by
from components.targets._operation import Operation
from components.targets._rules import Rule, scales_of_dense, unknown_size
from components.targets.tflm.resolver import CALLS, call

NO_KERNEL = "Didn't find op for builtin opcode"
UNKNOWN_SIZE = "Dynamic tensors are not supported"
HYBRID = "Hybrid models are not supported on TFLite Micro"
INSIDE = "An op of a subgraph that it runs is not supported"
DENSE = "Per-channel quantization of FULLY_CONNECTED is not supported"
COMPUTED = "Non-constant tensor is not supported"
TYPE = "Input type not supported"
# The types that kernels have; which op has which is in no list.
_TYPES = ("BOOL", "FLOAT32", "INT16", "INT32", "INT64", "INT8", "RESOURCE")
_OF_UNSIGNED = ("QUANTIZE", "DEQUANTIZE")
# Positions of data and weights, and the types that they may have where these differ.
# https://github.com/tensorflow/tflite-micro/blob/0cc6f983266d1bd6f5d66f485c546e8cc80ad6a2/tensorflow/lite/micro/kernels/fully_connected.cc
_WEIGHTED = {"CONV_2D": (0, 1), "DEPTHWISE_CONV_2D": (0, 1), "FULLY_CONNECTED": (0, 1), "TRANSPOSE_CONV": (2, 1)}
_OTHER_WEIGHTS = (("INT16", "INT8"), ("INT8", "INT4"))
# Kernels that ask for constants in these places: Non-constant >axis< (or size, or shape) tensor is not supported.
_CONSTANTS = {
    "BROADCAST_TO": (1,),
    "EXPAND_DIMS": (1,),
    "PAD": (1,),
    "PADV2": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SPLIT": (0,),
    "SPLIT_V": (2,),
    "TRANSPOSE_CONV": (0,),
}


def registered_op(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """TFLite Micro has a kernel for the op, which one of its resolver's calls registers."""
    return operation.op.name if call(operation) is None else None


def static_sizes(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """No tensor has a dimension that is unknown until the model runs: the arena is planned before."""
    return unknown_size(operation)


def signed_data(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """Data are signed: UINT8 is known to QUANTIZE and DEQUANTIZE alone."""
    unsigned = any(tensor.dtype == "UINT8" for tensor in operation.data)
    return "UINT8" if unsigned and operation.code not in _OF_UNSIGNED and operation.code != "CUSTOM" else None


def known_types(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """Data are of a type that kernels have: INT8, INT16, INT32, INT64, FLOAT32 or BOOL."""
    if operation.code == "CUSTOM" or operation.code in _OF_UNSIGNED:
        return None
    return next((tensor.dtype for tensor in operation.data if tensor.dtype not in _TYPES), None)


def one_scale_of_dense(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """Weights of a FULLY_CONNECTED have one scale."""
    return scales_of_dense(operation)


def weights_of_the_type_of_data(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """Weights have the type of the data, or are INT8 for INT16 data, or INT4 for INT8 data."""
    positions = _WEIGHTED.get(operation.code, ())
    tensors = [operation.operands[i] for i in positions if i < len(operation.operands)]
    types = tuple(tensor.dtype for tensor in tensors if tensor is not None)
    if len(types) < 2 or types[0] == types[1] or types in _OTHER_WEIGHTS:
        return None
    return f"{types[1]} for {types[0]}"


def constant_operands(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """Axes, paddings, sizes and shapes are constants."""
    positions = (i for i in _CONSTANTS.get(operation.code, ()) if i < len(operation.operands))
    computed = (t for i in positions if (t := operation.operands[i]) is not None and t.constant is None)
    return next((tensor.name or "a tensor that is computed" for tensor in computed), None)


def supported_subgraphs(operation: Operation, graphs: Sequence[Subgraph]) -> str | None:
    """The ops of the subgraphs that it runs keep these rules too."""
    for graph in subgraphs_run_by(operation.op, graphs):
        for op in graph.ops:
            operands = tuple(graph.tensors[i] if i >= 0 else None for i in op.operands)
            outputs = tuple(graph.tensors[i] for i in op.outputs)
            inner = Operation(op=op, operands=operands, outputs=outputs, options={})
            broken = next((rule for rule in _OF_ONE_OP if rule.breaks(inner, graphs) is not None), None)
            if broken is not None:
                return f"{op.name}: {broken.status}"
    return None


_OF_ONE_OP: tuple[Rule[Operation, Sequence[Subgraph]], ...] = (
    Rule(NO_KERNEL, registered_op),
    Rule(UNKNOWN_SIZE, static_sizes),
    Rule(HYBRID, weights_of_the_type_of_data),
    Rule(TYPE, signed_data),
    Rule(TYPE, known_types),
    Rule(DENSE, one_scale_of_dense),
    Rule(COMPUTED, constant_operands),
)
RULES = (*_OF_ONE_OP, Rule(INSIDE, supported_subgraphs))
_EDITS = {
    NO_KERNEL: "replace it by an op with a kernel, see SUPPORT.md, or leave it to the program behind the model",
    UNKNOWN_SIZE: "give the model inputs of a fixed size",
    HYBRID: "convert to integers with examples, not the weights alone",
    INSIDE: "replace the op inside the loop or branch, or unroll it",
    TYPE: "compute in int8, or in int16, inputs and outputs too",
    DENSE: 'convert with profile "tflm", which gives Dense layers one scale',
    COMPUTED: "give axes, paddings, sizes and shapes as constants",
}


def edit(op: str, status: str) -> str:
    """Returns what to change in a model, of an op and its status; "" where nothing is known."""
    return _EDITS.get(status, "")


def support_rows() -> list[tuple[str, ...]]:
    """Returns the rows of the table of ops on the support page."""
    return sorted(CALLS.items())
