"""Rules of how ops and tensors hang together: what interpreters refuse, or read from where nobody wrote."""

import math
from collections.abc import Iterator

from components.quantization.conversion.audit.rules import (
    CHANNEL_AXIS,
    QUANTIZED,
    Found,
    Place,
    Rule,
    weighted,
)
from components.quantization.conversion.flatbuffer import Model, Subgraph, Tensor

# What kernels count elements with.
_MOST_ELEMENTS = 2**31 - 1
# Types of weights and of results that kernels of layers have, by that of the input; INT4 has a rule of its own.
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/fully_connected.cc
_LAYER_TYPES = {
    "INT8": (("INT8", "INT4"), ("INT8",)),
    "INT16": (("INT8", "INT4"), ("INT16",)),
    "UINT8": (("UINT8", "INT4"), ("UINT8", "INT16")),
}

UNWRITTEN = Rule(
    name="unwritten",
    kind="graph",
    text="What an op reads, or the model returns, is an input, a constant, a variable, or what an earlier op computed;"
    " a compiled op may have memory to work in, without a scale.",
    fix="convert the model again: the file is damaged or was edited",
)
OVERWRITTEN = Rule(
    name="overwritten",
    kind="graph",
    text="A tensor is an input, a constant, a variable, or what one op computes: one of these alone.",
    fix=UNWRITTEN.fix,
)
NO_OUTPUT = Rule(
    name="no-output",
    kind="graph",
    text="The model returns something.",
    fix="convert a function that returns tensors",
)
OPERANDS = Rule(
    name="operands",
    kind="graph",
    text="Convolutions and Dense layers have an input, weights and a result.",
    fix=UNWRITTEN.fix,
)
LAYER_TYPES = Rule(
    name="layer-types",
    kind="graph",
    text="Results of convolutions and Dense layers are of the input's type, weights INT8 or INT4, UINT8 beside UINT8.",
    fix="convert the model again, with one type of activations in each layer",
)
TOO_LARGE = Rule(
    name="too-large",
    kind="graph",
    text="A tensor has less than 2**31 elements.",
    fix="convert from a function with smaller dimensions",
)
SPARSE = Rule(
    name="sparse",
    kind="graph",
    text="Constants are stored whole: values of sparse ones cannot be proved.",
    fix="convert without EXPERIMENTAL_SPARSITY",
)
SIGNATURE = Rule(
    name="signature",
    kind="graph",
    text="Signatures have keys of their own, and name inputs and outputs of a subgraph.",
    fix=UNWRITTEN.fix,
)
RULES = (UNWRITTEN, OVERWRITTEN, NO_OUTPUT, OPERANDS, LAYER_TYPES, TOO_LARGE, SPARSE, SIGNATURE)


def check(place: Place) -> Iterator[Found]:
    """Yields what breaks the rules of an op."""
    tensors = place.graph.tensors
    ready = place.known.setdefault((check,), set(place.graph.inputs))
    for index in dict.fromkeys(place.op.inputs):
        if tensors[index].scale or not place.is_compiled:  # else it may be memory to work in, such as Vela's "scratch"
            yield from _unwritten(tensors[index], ready)
    for index in dict.fromkeys(place.op.outputs):
        tensor = tensors[index]
        if index in ready or tensor.constant is not None or tensor.is_variable:
            how = "an input or the result of another op" if index in ready else "a constant or a variable"
            yield Found(rule=OVERWRITTEN, tensor=tensor, reason=f"is {how}, too")
        ready.add(index)
    for index in dict.fromkeys((*place.op.inputs, *place.op.outputs)):
        yield from place.once(_of_tensor, tensors[index])
    yield from _layer(place)


def edges(index: int, graph: Subgraph) -> Iterator[tuple[str, Found]]:
    """Yields what breaks the rules of inputs and outputs of a subgraph, each with the side that it is of."""
    for tensor in (graph.tensors[i] for i in dict.fromkeys(graph.inputs)):
        if tensor.constant is not None or tensor.is_variable:
            yield "input", Found(rule=OVERWRITTEN, tensor=tensor, reason="is a constant or a variable, too")
    ready = {*graph.inputs, *(i for op in graph.ops for i in op.outputs)}
    for tensor in (graph.tensors[i] for i in dict.fromkeys(graph.outputs)):
        yield from (("output", found) for found in _unwritten(tensor, ready))
    if index == 0 and not graph.outputs:
        yield "output", Found(rule=NO_OUTPUT, tensor=None, reason="the main subgraph has no output")


def signatures(model: Model) -> Iterator[Found]:
    """Yields what breaks the rules of signatures."""
    keys: set[str] = set()
    for signature in model.signatures:
        graph = model.subgraphs[signature.subgraph] if signature.subgraph < len(model.subgraphs) else None
        wrong = []
        if signature.key in keys:
            wrong.append("is there twice")
        if graph is None:
            wrong.append(f"is of subgraph {signature.subgraph}, expected one of {len(model.subgraphs)}")
        elif not (set(signature.inputs) <= set(graph.inputs) and set(signature.outputs) <= set(graph.outputs)):
            wrong.append(f"names tensors that are no input or no output of subgraph {signature.subgraph}")
        keys.add(signature.key)
        yield from (Found(rule=SIGNATURE, tensor=None, reason=f"{signature.key!r:.80} {what}") for what in wrong)


def _unwritten(tensor: Tensor, ready: set[int]) -> Iterator[Found]:
    given = tensor.constant is not None or tensor.is_variable or 0 in tensor.shape
    if not given and tensor.index not in ready:
        yield Found(rule=UNWRITTEN, tensor=tensor, reason="has no values yet when it is read")


def _of_tensor(tensor: Tensor) -> list[Found]:
    found = []
    if tensor.is_variable and tensor.constant is not None:
        found.append(Found(rule=OVERWRITTEN, tensor=tensor, reason="is a constant and a variable"))
    if not any(size <= 0 for size in tensor.shape) and math.prod(tensor.shape) > _MOST_ELEMENTS:
        found.append(Found(rule=TOO_LARGE, tensor=tensor, reason=f"shape {list(tensor.shape)}"))
    if tensor.is_sparse:
        found.append(Found(rule=SPARSE, tensor=tensor, reason="is sparse"))
    return found


def _layer(place: Place) -> Iterator[Found]:
    if place.op.code not in CHANNEL_AXIS:
        return
    layer = next(weighted(place), None)
    if layer is None:
        yield Found(rule=OPERANDS, tensor=None, reason="lacks one of them")
        return
    source, weights, _, result = layer
    if source.dtype not in _LAYER_TYPES or "FLOAT" in weights.dtype or "FLOAT" in result.dtype:
        return  # offenders of other rules
    weight_types, result_types = _LAYER_TYPES[source.dtype]
    if weights.dtype not in weight_types:
        yield Found(rule=LAYER_TYPES, tensor=weights, reason=f"{weights.dtype} beside an input of {source.dtype}")
    if result.dtype in QUANTIZED and result.dtype not in result_types:
        yield Found(rule=LAYER_TYPES, tensor=result, reason=f"{result.dtype} of an input of {source.dtype}")
