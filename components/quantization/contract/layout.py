"""What the axes of a model's inputs and outputs are, where an op says so."""

from components.quantization.conversion.flatbuffer import Op, Subgraph, Tensor

_IMAGE_OPS = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
)
_BY_OP = {**dict.fromkeys(_IMAGE_OPS, "NHWC"), "CONV_3D": "NDHWC"}
_DATA_OPERAND = {"TRANSPOSE_CONV": 2}  # of which the output's shape and the weights are the first
# Ops that leave the axes as they are.
_KEEPING = frozenset(
    {
        *(
            "ADD",
            "CAST",
            "DEQUANTIZE",
            "DIV",
            "ELU",
            "GELU",
            "HARD_SWISH",
            "L2_NORMALIZATION",
            "LEAKY_RELU",
            "LOGISTIC",
        ),
        *("MAXIMUM", "MINIMUM", "MIRROR_PAD", "MUL", "PAD", "PADV2", "PRELU", "QUANTIZE", "RELU", "RELU6"),
        *("RELU_N1_TO_1", "SOFTMAX", "SUB", "TANH"),
    }
)
_INSERTING = ("RESHAPE", "EXPAND_DIMS")  # what makes an image of height 1 of a sequence
UNKNOWN = "?"


def input_layout(graph: Subgraph, index: int) -> str:
    """Returns for example "NHWC", "NWC" (a sequence that a convolution reads) or "NC"; "?" if no op says it."""
    return _read(graph, index, set())


def output_layout(graph: Subgraph, index: int) -> str:
    """Returns likewise what the op that writes an output says."""
    tensor = graph.tensors[index]
    makers = [op for op in graph.ops if index in op.outputs]
    for op in makers:
        if op.code in (*_IMAGE_OPS, "TRANSPOSE_CONV", "CONV_3D"):
            return _fitting(_BY_OP.get(op.code, "NHWC"), tensor)
        if op.code == "FULLY_CONNECTED":
            return _fitting("NC", tensor)
        if op.code in _KEEPING and op.inputs and _same_rank(graph.tensors[op.inputs[0]], tensor):
            return output_layout(graph, op.inputs[0])
        if op.code in _INSERTING and len(tensor.shape) == 3:
            return (
                "NWC" if _is_sequence(tensor, graph.tensors[op.inputs[0]], output_layout(graph, op.inputs[0])) else "?"
            )
    return UNKNOWN


def _read(graph: Subgraph, index: int, seen: set[int]) -> str:
    seen.add(index)
    tensor = graph.tensors[index]
    found = {_by_reader(graph, op, tensor, seen) for op in graph.ops if index in op.inputs} - {UNKNOWN}
    return found.pop() if len(found) == 1 else UNKNOWN


def _by_reader(graph: Subgraph, op: Op, tensor: Tensor, seen: set[int]) -> str:
    is_data = op.inputs[_DATA_OPERAND.get(op.code, 0)] == tensor.index
    if op.code in _BY_OP or op.code == "TRANSPOSE_CONV":
        return _fitting(_BY_OP.get(op.code, "NHWC"), tensor) if is_data else UNKNOWN
    if op.code == "FULLY_CONNECTED":
        return _fitting("NC", tensor) if is_data else UNKNOWN
    result = graph.tensors[op.outputs[0]] if op.outputs else None
    if result is None or result.index in seen:
        return UNKNOWN
    if op.code in _KEEPING and _same_rank(tensor, result):
        return _read(graph, result.index, seen)
    if op.code in _INSERTING and is_data and _is_sequence(tensor, result, _read(graph, result.index, seen)):
        return "NWC"
    return UNKNOWN


def _is_sequence(sequence: Tensor, image: Tensor, layout: str) -> bool:
    """Whether the image is the sequence with a height or a width of 1."""
    if layout != "NHWC" or len(sequence.shape) != 3:
        return False
    batch, width, channels = sequence.shape
    return image.shape in ((batch, 1, width, channels), (batch, width, 1, channels))


def _fitting(layout: str, tensor: Tensor) -> str:
    return layout if len(layout) == len(tensor.shape) else UNKNOWN


def _same_rank(first: Tensor, second: Tensor) -> bool:
    return len(first.shape) == len(second.shape)
