"""Preprocessing as a frozen graph for one example, of which any part can be run."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.eager import wrap_function
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """What makes the model's features of raw ones.

    Attributes:
      function: Takes a dict of tensors (batch, ...) by name of the raw feature, returns one by name of the model's
        input (others are ignored). A Keras layer, a `tf.function`, or see `from_concrete`.
      features: The dtype and shape of each raw feature, the batch first, for example
        {"image": tf.TensorSpec([None, 64], tf.float32)}.
    """

    function: Callable[[dict[str, Any]], Mapping[str, Any]]
    features: Mapping[str, Any]

    @classmethod
    def from_concrete(cls, function: Any) -> "Preprocessing":
        """Takes a concrete function whose arguments are named tensors, or one dict of them.

        Raises:
          ValueError: If its arguments are anything else, or its result is no dict.
        """
        arguments, keywords = function.structured_input_signature
        if not isinstance(function.structured_outputs, dict):
            raise ValueError("preprocessing: the function returns no dict, expected tensors by name")
        if len(arguments) == 1 and isinstance(arguments[0], dict) and not keywords:
            return cls(function=function, features=arguments[0])
        named = {spec.name: spec for spec in arguments if isinstance(spec, tf.TensorSpec) and spec.name}
        if len(named) < len(arguments):
            raise ValueError(
                "preprocessing: got arguments without names, expected tensors by name, or one dict of them"
            )
        return cls(function=lambda raw: function(**raw), features={**named, **keywords})

    def apply(self, raw: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Returns the features of raw examples, each preprocessed by itself: the pipeline's own path.

        Args:
          raw: Arrays of (examples, ...), or sparse tensors, by name of the raw feature.

        Raises:
          ValueError: If a raw feature is missing, or numbers of examples differ.
        """
        missing = sorted(set(self.features) - set(raw))
        if missing:
            raise ValueError(f"raw examples lack {', '.join(missing)}; got {', '.join(sorted(raw))}")
        tensors = {
            name: value if isinstance(value := raw[name], tf.SparseTensor) else tf.constant(value, spec.dtype)
            for name, spec in self.features.items()
        }
        counts = {name: int(value.shape[0]) for name, value in tensors.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"raw examples: got {counts}, expected as many of each")
        function = tf.function(self.function, reduce_retracing=True)
        rows = [
            function({name: _row(value, row) for name, value in tensors.items()})
            for row in range(next(iter(counts.values())))
        ]
        return {
            name: np.concatenate([row[name].numpy() for row in rows])
            for name, value in rows[0].items()
            if isinstance(value, tf.Tensor)
        }

    def frozen(self) -> "FrozenGraph":
        """Returns it for one example, with its variables as constants and its functions inlined."""
        specs = {name: _of_one(spec) for name, spec in self.features.items()}
        concrete = tf.function(lambda raw: dict(self.function(raw))).get_concrete_function(specs)
        captured = {inner.name: outer for outer, inner in concrete.graph.captures}
        # A transform graph is not inlined otherwise: it may read its lookup tables in any order.
        frozen = _rewritten(
            convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True), captured
        )
        features = _component_names(specs, single="{}", several="{}, component {}")
        outputs = _component_names(concrete.structured_outputs, single="{}", several="")
        return FrozenGraph(
            preprocessing=self,
            function=frozen,
            features=dict(zip(features, frozen.inputs, strict=False)),  # tables are behind
            tables=[(tensor, captured[tensor.name]) for tensor in frozen.inputs if tensor.name in captured],
            outputs={name: value for name, value in zip(outputs, frozen.outputs, strict=True) if name},
        )


def _row(value: Any, row: int) -> Any:
    if isinstance(value, tf.SparseTensor):
        shape = value.shape.as_list()
        return tf.sparse.slice(value, [row, *[0] * (len(shape) - 1)], [1, *shape[1:]])
    return value[row : row + 1]


def _component_names(structure: Mapping[str, Any], single: str, several: str) -> list[str]:
    """The names of a dict's tensors, in TensorFlow's order; a sparse one has several."""
    names = []
    for name in sorted(structure):
        parts = tf.nest.flatten(structure[name], expand_composites=True)
        pattern = single if len(parts) == 1 else several
        names += [pattern.format(name, index) for index in range(len(parts))]
    return names


def _rewritten(function: Any, captured: Collection[str]) -> Any:
    """The function as it can be taken apart, computing what it computed.

    Without control dependencies, which tie each result to the raw features of all others. And with what was captured,
    such as analyzers' results, hidden from TensorFlow's optimizer: it makes a division by a constant, and by nothing
    else, a multiplication by the reciprocal, which rounds otherwise.
    """
    graph = function.graph.as_graph_def()
    hidden = []
    for node in graph.node:
        data = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(data)
        if node.op == "Const" and f"{node.name}:0" in captured:
            hidden.append(node)
    for node in hidden:
        dtype, shape = node.attr["dtype"], node.attr["value"].tensor.tensor_shape
        graph.node.add(
            op="PlaceholderWithDefault",
            name=node.name,
            input=[f"{node.name}/captured"],
            attr={"dtype": dtype, "shape": tf.compat.v1.AttrValue(shape=shape)},
        )
        node.name = f"{node.name}/captured"
    return wrap_function.function_from_graph_def(
        graph, [tensor.name for tensor in function.inputs], [tensor.name for tensor in function.outputs]
    )


def identity(inputs: Mapping[str, tuple[tuple[int, ...], str]]) -> Preprocessing:
    """Returns the preprocessing of a pipeline that has none: raw features are the model's inputs.

    Args:
      inputs: Shape, the batch first, and dtype by name.
    """
    features = {name: tf.TensorSpec([None, *shape[1:]], dtype) for name, (shape, dtype) in inputs.items()}
    return Preprocessing(function=lambda raw: {name: tf.identity(raw[name]) for name in features}, features=features)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FrozenGraph:
    """A frozen graph for one example.

    Attributes:
      preprocessing: What was frozen.
      function: The frozen concrete function.
      features: The placeholder of each raw feature, by name.
      tables: The placeholder of what is captured and no variable, and its value: lookup tables.
      outputs: The tensor of each dense result, by name.
    """

    preprocessing: Preprocessing
    function: Any
    features: Mapping[str, Any]
    tables: list[tuple[Any, Any]]
    outputs: Mapping[str, Any]

    def run(self, fetch: Any, raw: Mapping[str, npt.ArrayLike]) -> npt.NDArray[Any]:
        """Returns the values of a tensor for each of many raw examples, stacked.

        Args:
          fetch: A tensor of the graph for which `runs`.
          raw: Arrays of (examples, ...) by name of the raw feature.
        """
        needed = {op.name for op in ancestors(fetch)}
        features = {name: tensor for name, tensor in self.features.items() if tensor.op.name in needed}
        tables = [(inner, outer) for inner, outer in self.tables if inner.op.name in needed]
        pruned = self.function.prune([*features.values(), *(inner for inner, _ in tables)], [fetch])
        columns = [tf.constant(raw[name], tensor.dtype) for name, tensor in features.items()]
        rows = [
            pruned(*[column[row : row + 1] for column in columns], *(outer for _, outer in tables))[0].numpy()
            for row in range(len(columns[0]))
        ]
        return np.concatenate(rows)

    def runs(self, fetch: Any, raw: Mapping[str, npt.ArrayLike]) -> bool:
        """Whether all raw features that a tensor depends on are there and dense."""
        needed = {op.name for op in ancestors(fetch)}
        return all(
            name in raw and not isinstance(raw[name], tf.SparseTensor)
            for name, tensor in self.features.items()
            if tensor.op.name in needed
        )

    def run_from(self, source: Any, output: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns a result for each of many values of the one tensor that it depends on, stacked.

        Where that is a raw feature, by preprocessing itself.

        Args:
          source: A tensor of the graph.
          output: The name of a result that depends on it and on constants alone.
          values: Array of (many, *shape of one example).
        """
        name = next((name for name, tensor in self.features.items() if tensor is source), None)
        if name is not None:
            others = {key: _empty(spec, len(values)) for key, spec in self.preprocessing.features.items()}
            try:
                return self.preprocessing.apply({**others, name: values})[output]
            except tf.errors.OpError:  # preprocessing refuses another feature's empty value
                pass
        pruned = self.function.prune([source], [self.outputs[output]])
        rows = [pruned(tf.constant(values[row : row + 1], source.dtype))[0].numpy() for row in range(len(values))]
        return np.concatenate(rows)


def _empty(spec: Any, count: int) -> Any:
    """Zeros, or empty strings, of so many examples."""
    shape = [count, *(size or 1 for size in spec.shape.as_list()[1:])]
    if isinstance(spec, tf.SparseTensorSpec):
        return tf.SparseTensor(np.zeros((0, len(shape)), np.int64), tf.zeros([0], spec.dtype), shape)
    return tf.zeros(shape, spec.dtype)


def ancestors(tensor: Any) -> list[Any]:
    """Returns the ops that a tensor depends on by data, each after those that it takes from."""
    ordered: dict[str, Any] = {}
    pending = [tensor.op]
    while pending:
        op = pending[-1]
        waiting = [value.op for value in op.inputs if value.op.name not in ordered]
        if op.name in ordered or not waiting:
            ordered.setdefault(pending.pop().name, op)
        else:
            pending.extend(waiting)
    return list(ordered.values())


def shape_of_one(tensor: Any) -> tuple[int, ...] | None:
    """The static shape of a tensor for one example; None if a dimension other than the batch is unknown."""
    if tensor.shape.rank is None:
        return None
    sizes = tensor.shape.as_list()
    if sizes[:1] == [None]:
        sizes[0] = 1
    return None if None in sizes else tuple(sizes)


def _of_one(spec: Any) -> Any:
    if isinstance(spec, tf.TensorSpec):
        return tf.TensorSpec([1, *spec.shape[1:]], spec.dtype)
    if isinstance(spec, tf.SparseTensorSpec):
        return tf.SparseTensorSpec([1, *spec.shape[1:]], spec.dtype)
    return spec
