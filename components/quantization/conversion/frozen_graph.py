"""A traced function as a graph of constants: what depends on no input is computed once, here.

TensorFlow's converter folds constants too, but keeps every step of that until it is done: for the fake-quantized
kernels of a model with 25 million parameters more than a gigabyte.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from components.quantization.conversion import int16_ranges, unused_outputs, zero_terms

# With scalar ranges, and with one per channel.
FAKE_QUANTIZATION_OPS = frozenset({int16_ranges.FAKE_QUANTIZATION, f"{int16_ranges.FAKE_QUANTIZATION}PerChannel"})
# Has a state that is as constant as the variable.
_READ = "ReadVariableOp"
# Makes what no constant can hold.
_LIST = "TensorList"
# Constants computed at once. Each time takes milliseconds.
_AT_ONCE = 4

# Puts the value of a constant tensor into a GraphDef, under a name, for the nodes that take it; returns the name of the
# node that they shall take.
Put = Callable[[Any, str, Any, Sequence[Any]], str]


def put_constant(definition: Any, name: str, value: Any, takers: Sequence[Any] = ()) -> str:
    """Puts a tensor into a GraphDef as a constant; returns its name."""
    del takers  # all of them can take it
    node = definition.node.add(name=name, op="Const")
    node.attr["dtype"].type = value.dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value.numpy(), shape=value.shape))
    return name


def freeze(concrete: Any, put: Put = put_constant) -> Any:
    """Returns the graph of a concrete function: functions inlined, and as few nodes as its inputs make necessary.

    Names of nodes stay. Fake quantization stays even on constants, since it tells a range.

    Args:
      concrete: A concrete function.
      put: Puts what was computed into the new graph; outputs of the function are always constants.

    Returns:
      A GraphDef, with nodes for the function's inputs and outputs.
    """
    definition, captures = _flat(concrete)
    inputs = {_node(name) for name in _fed(concrete)}
    outputs = [tensor.name for tensor in concrete.outputs]
    definition = _folded(definition, captures, inputs, outputs, put)
    while zero_terms.remove(definition):
        definition = _folded(definition, {}, inputs, outputs, put)
    unused_outputs.slice_used(definition, _used(definition, outputs))
    return definition


def _fed(concrete: Any) -> list[str]:
    captured = {id(placeholder) for _, placeholder in concrete.graph.captures}
    return [tensor.name for tensor in concrete.inputs if id(tensor) not in captured]


def _flat(concrete: Any) -> tuple[Any, dict[str, Any]]:
    """The graph without functions, and the tensors that its captured placeholders stand for by name."""
    captures = {placeholder.op.name: tensor for tensor, placeholder in concrete.graph.captures}
    definition = concrete.graph.as_graph_def()
    resources = {name for name, tensor in captures.items() if tensor.dtype == tf.resource}
    direct = all(node.op == _READ or not resources & {_node(name) for name in node.input} for node in definition.node)
    if direct and not definition.library.function:
        return definition, captures
    # A variable is used otherwise than by reading it, as embeddings are, or there are functions.
    flat = convert_variables_to_constants_v2(concrete, lower_control_flow=False).graph.as_graph_def()
    return _in_order(flat, [tensor.name for tensor in concrete.outputs]), {}


def _in_order(definition: Any, outputs: Sequence[str]) -> Any:
    """The same graph with its nodes in the order in which the outputs need them: TensorFlow inlines in any order."""
    by_name = {node.name: node for node in definition.node}
    # What no output needs comes last.
    left = [(name, False) for name in (*sorted(by_name, reverse=True), *map(_node, reversed(outputs)))]
    ordered = graph_pb2.GraphDef(versions=definition.versions, library=definition.library)
    entered: set[str] = set()
    while left:
        name, is_ready = left.pop()
        if is_ready:
            ordered.node.append(by_name[name])
        elif name not in entered:
            entered.add(name)
            left += [(name, True), *((_node(source), False) for source in reversed(by_name[name].input))]
    return ordered


def _dynamic_nodes(nodes: Sequence[Any], inputs: set[str]) -> set[str]:
    """Names of nodes that depend on an input, or must stay for another reason."""
    consumers: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(_node(name), []).append(node.name)
    left = [node.name for node in nodes if node.name in inputs or node.op in FAKE_QUANTIZATION_OPS or _stateful(node)]
    dynamic: set[str] = set()
    while left:
        name = left.pop()
        if name not in dynamic:
            dynamic.add(name)
            left += consumers.get(name, ())
    return dynamic


def _stateful(node: Any) -> bool:
    known = op_def_registry.get(node.op)
    return _LIST in node.op or (node.op not in (_READ, "Placeholder") and (known is None or known.is_stateful))


def _boundary(nodes: Sequence[Any], dynamic: set[str], outputs: Iterable[str]) -> list[str]:
    """Constant tensors that dynamic nodes take, that are outputs, or that tell an 8-bit range; constants left out."""
    constants = {node.name for node in nodes if node.op == "Const"}
    taken = [name for node in nodes if node.name in dynamic for name in node.input]
    taken += [end for _, *ends in int16_ranges.wide_nodes(nodes) for end in ends]
    tensors = [_tensor(name) for name in (*taken, *outputs) if not name.startswith("^")]
    return [name for name in dict.fromkeys(tensors) if _node(name) not in dynamic | constants]


def _evaluated(definition: Any, captures: Mapping[str, Any], tensors: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Constant tensors of a graph and their values, of which there are few at a time: together they are the model."""
    for start in range(0, len(tensors), _AT_ONCE):
        yield from _values(definition, captures, tensors[start : start + _AT_ONCE]).items()


def _values(definition: Any, captures: Mapping[str, Any], tensors: Sequence[str]) -> dict[str, Any]:
    """The values of constant tensors of a graph, by name."""
    needed = _behind({_node(name) for name in tensors}, definition.node)
    constant = graph_pb2.GraphDef(versions=definition.versions, library=definition.library)
    constant.node.extend(node for node in definition.node if node.name in needed and node.name not in captures)
    for node in constant.node:
        node.input[:] = [name for name in node.input if not name.startswith("^")]
    mapped = {name: tensor for name, tensor in captures.items() if name in needed}

    def compute() -> Any:
        graph = tf.compat.v1.get_default_graph()
        inputs = {name: graph.capture(tensor) for name, tensor in mapped.items()}
        return tf.graph_util.import_graph_def(constant, inputs, return_elements=computed, name="")

    computed = [name for name in tensors if _node(name) not in mapped]
    values = {name: mapped[_node(name)] for name in tensors if _node(name) in mapped}
    if computed:
        values |= dict(zip(computed, tf.compat.v1.wrap_function(compute, [])(), strict=True))
    return {name: values[name] for name in tensors}


def _behind(names: set[str], nodes: Sequence[Any]) -> set[str]:
    by_name = {node.name: node for node in nodes}
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in by_name and name not in found:
            found.add(name)
            left += [_node(source) for source in by_name[name].input if not source.startswith("^")]
    return found


def _folded(definition: Any, captures: Mapping[str, Any], inputs: set[str], outputs: Sequence[str], put: Put) -> Any:
    """The graph of what depends on inputs, and of constants for what that takes, none of them held twice."""
    dynamic = _dynamic_nodes(definition.node, inputs)
    folded = graph_pb2.GraphDef(versions=definition.versions, library=definition.library)
    names: dict[str, str] = {}
    taken = {node.name for node in definition.node}
    takers: dict[str, list[Any]] = {}
    for node in definition.node:
        for name in node.input if node.name in dynamic else ():
            takers.setdefault(_tensor(name), []).append(node)
    for tensor, value in _evaluated(definition, captures, _boundary(definition.node, dynamic, outputs)):
        place = put_constant if tensor in outputs else put
        names[tensor] = place(folded, _constant_name(tensor, taken), value, takers.get(tensor, ()))
    sources = {_node(name) for node in definition.node if node.name in dynamic for name in node.input}
    sources |= {_node(name) for name in outputs}
    for node in definition.node:
        if node.name in dynamic or (node.op == "Const" and node.name in sources):
            kept = folded.node.add()
            kept.CopyFrom(node)
            kept.input[:] = [names.get(_tensor(name), name) for name in node.input if _stays(name, dynamic)]
    return folded


def _used(definition: Any, outputs: Sequence[str]) -> set[str]:
    """The names of the tensors that the outputs need, themselves among them."""
    needed = _behind({_node(name) for name in outputs}, definition.node)
    taken = (name for node in definition.node if node.name in needed for name in node.input if not name.startswith("^"))
    return {*outputs, *map(_tensor, taken)}


def _stays(name: str, dynamic: set[str]) -> bool:
    return not name.startswith("^") or name[1:] in dynamic


def _constant_name(tensor: str, taken: set[str]) -> str:
    """The name of the node itself for its first output, a name that nothing has for another."""
    name, _, index = tensor.partition(":")
    if index != "0":
        name = f"{name}/output_{index}"
        while name in taken:
            name += "_"
    return name


def _node(name: str) -> str:
    return name.removeprefix("^").split(":")[0]


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"
