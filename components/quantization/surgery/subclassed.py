"""Subclassed models captured as functional graphs, by calling them on symbolic inputs."""

import inspect
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.surgery.graph import Call, Copies, calls, rebuilt, replay, symbol
from components.quantization.surgery.proof import require_same_function
from components.quantization.surgery.source_lines import PYTHON, blamed, blamed_line, mention, reason

_BRANCH = r"\bif\b.*training"
_OTHER_TRAINING = r"^(?!\s*def ).*training=(?!training\s*[,)])"  # what a call tells that is not `training` as it is
_REMEDY = (
    "use layers and functions of TensorFlow alone: tf.where for a Python `if` on values, functions of TensorFlow"
    " for those of NumPy or Python, a layer for a variable, compile() for losses and metrics"
)


def captured(model: tf_keras.Model, input_shape: Any = None) -> tf_keras.Model:
    """Captures a subclassed model as a functional one, with layers and weights of its own.

    What the model's `call` does with layers and functions of TensorFlow becomes the graph. So does what nested models
    do, and layers of the user's without weights of their own; their layers are named `outer/inner`. A layer that hears
    from `call` whether it is training hears it from the functional model.

    Args:
      model: A subclassed model that has been called or built; a functional one is returned as it is.
      input_shape: Shapes of its inputs with the batch, in their structure, for a model of float32 not called yet.

    Returns:
      A functional model, not compiled, that computes the same.

    Raises:
      ValueError: If what `call` does cannot be captured; names the line.
    """
    if model._is_graph_network:
        return model
    specs = _input_specs(model, input_shape)
    still, training = _Trace(model, specs, training=False), _Trace(model, specs, training=True)
    branches = still.callees() != training.callees()
    trace = training if branches else still
    following = _following(model, still, training, branches)
    after = _told_at_run_time(trace.graph, following)

    def before(arguments: Any, training: bool) -> Any:
        return model(tf.nest.pack_sequence_as(specs, tf.nest.flatten(arguments)), training=training)

    try:
        require_same_function(before, after, "capture the call")
    except ValueError as error:
        if not branches:
            raise
        raise ValueError(
            f"model {model.name!r}: got a call that does something else in training"
            f"{_mention_in_layers(model, _BRANCH)}, expected one that always calls the same; tell the layers"
            " `training` in place of branching on it"
        ) from error
    return after


class _Trace:
    """What a model's `call` does, in training or not.

    Attributes:
      graph: It as a functional model, of copies of the layers that are not opened.
    """

    def __init__(self, model: tf_keras.Model, specs: Any, training: bool) -> None:
        self._training = training
        self._copies = Copies()
        self._originals: dict[int, Any] = {}
        inputs = tf.nest.map_structure(
            lambda spec: tf_keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=spec.name), specs
        )
        outline = self._functional(model, inputs, (inputs,), {})
        self.graph = rebuilt(outline, lambda call, args, kwargs: self._played(call, args, kwargs, ""))
        self._copies.copy_weights()

    def callees(self) -> list[Any]:
        """Returns what is called, in order: functions of TensorFlow by their names, layers by their ids."""
        return [symbol(call.layer) or id(self._originals[id(call.layer)]) for call in calls(self.graph)]

    def told(self) -> list[Any]:
        """Returns what each call is told about `training`."""
        return [call.kwargs.get("training") for call in calls(self.graph)]

    def _played(self, call: Call, args: Any, kwargs: Any, prefix: str, frozen: bool = False) -> Any:
        """Calls a copy of the layer, or what the layer calls; `frozen` inside what is not trainable."""
        if not _is_open(call):
            return self._call_copy(call.layer, prefix, frozen, args, kwargs)
        values = {
            id(old): new
            for old, new in zip(tf.nest.flatten((call.args, call.kwargs)), tf.nest.flatten((args, kwargs)), strict=True)
        }
        if _is_functional(call.layer):
            part, inputs = call.layer, call.layer._flatten_to_reference_inputs(args[0] if args else kwargs["inputs"])
        else:
            part = self._functional_part(call)
            inputs = [values[key] for key in dict.fromkeys(map(id, call.inputs))]
        training = kwargs.get("training")

        def told(inner: Call, inner_args: tuple[Any, ...], inner_kwargs: dict[str, Any]) -> Any:
            hears = inner.layer._call_spec.expects_training_arg and inner_kwargs.get("training") is None
            if training is not None and hears:
                inner_kwargs = {**inner_kwargs, "training": training}
            still = frozen or not call.layer.trainable
            return self._played(inner, inner_args, inner_kwargs, f"{prefix}{call.layer.name}/", still)

        return replay(part, inputs, told)

    def _call_copy(self, layer: Any, prefix: str, frozen: bool, args: Any, kwargs: Any) -> Any:
        copy = self._copy(layer, prefix, frozen)
        try:
            return copy(*args, **kwargs)
        except Exception as error:  # such as a tensor without a shape, which no weights can be made for
            raise ValueError(
                f"layer {prefix + layer.name!r}: got {type(error).__name__} when called again, {reason(error)}; give"
                " what it takes a shape of numbers, as tf.ensure_shape does"
            ) from error

    def _copy(self, layer: Any, prefix: str, frozen: bool) -> Any:
        try:
            copy = self._copies.of(layer, {"name": f"{prefix}{layer.name}"}, frozen)
        except Exception as error:  # whatever a constructor of the user's raises
            raise ValueError(
                f"layer {layer.name!r}: got a {type(layer).__name__} that cannot be copied, {type(error).__name__}:"
                f" {reason(error)}; give it a get_config that returns what its constructor takes"
            ) from error
        self._originals[id(copy)] = layer
        return copy

    def _functional_part(self, call: Call) -> tf_keras.Model:
        """What a layer of the user's calls, as a model of the tensors among its arguments."""
        fresh = {id(old): tf_keras.Input(batch_shape=old.shape, dtype=old.dtype) for old in call.inputs}
        args, kwargs = tf.nest.map_structure(lambda leaf: fresh.get(id(leaf), leaf), (call.args, call.kwargs))
        return self._functional(call.layer, list(fresh.values()), args, kwargs)

    def _functional(self, layer: Any, inputs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tf_keras.Model:
        """What the `call` of a layer or model of the user's does with symbolic inputs."""
        function = getattr(layer.call, "python_function", layer.call)  # a tf.function takes no symbols of Keras
        if "training" in inspect.signature(function).parameters and kwargs.get("training") is None:
            kwargs = {**kwargs, "training": self._training}
        where = f"{'model' if isinstance(layer, tf_keras.Model) else 'layer'} {layer.name!r}"
        own = [*layer._trainable_weights, *layer._non_trainable_weights]
        effect = mention(function, r"self\.add_(loss|metric)\(|\.assign(_add|_sub)?\(" + _attributes(layer, own, "|"))
        if effect:
            raise ValueError(f"{where}: its call uses a variable, a loss or a metric of its own{effect}; {_REMEDY}")
        try:
            with tf.GradientTape() as tape, tf.variable_creator_scope(_refuse_variables):
                outputs = function(*args, **kwargs)
            model = tf_keras.Model(inputs, outputs, name=layer.name)
        except Exception as error:  # whatever the user's code, or a library that it calls, raises
            line, why = blamed(error, function)
            raise ValueError(f"{where}: its call cannot be captured at {line}: {why}; {_REMEDY}") from error
        if any(symbol(call.layer) in PYTHON.split("|") for call in calls(model)):
            line = mention(function, rf"({PYTHON})\(")
            raise ValueError(f"{where}: its call runs Python code{line}, which TFLite cannot; {_REMEDY}")
        loose = _loose_variables(model, tape.watched_variables())
        if loose:
            raise ValueError(
                f"{where}: its call takes {_listed(loose)} other than by calling a layer on its inputs"
                f"{mention(function, _attributes(layer, loose))}, which training would not reach; {_REMEDY}"
            )
        return model


def _following(model: tf_keras.Model, still: _Trace, training: _Trace, branches: bool) -> list[bool]:
    """Which calls, of `training` if it branches and else of `still`, are told whether it is training."""
    if branches:  # layers that only training calls may compute nothing otherwise, as Dropout does
        return [told is True for told in training.told()]
    pairs = list(zip(still.told(), training.told(), strict=True))
    if any(told != now and told is not False for told, now in pairs):
        raise ValueError(
            f"model {model.name!r}: got a call that tells a layer something else than `training`, or the contrary"
            f"{_mention_in_layers(model, _OTHER_TRAINING)}, expected `training`; pass it on as it is"
        )
    return [told != now for told, now in pairs]


def _told_at_run_time(graph: tf_keras.Model, following: Sequence[bool]) -> tf_keras.Model:
    """The same model of copies, in which the calls that are `following` hear from the model whether it is training."""
    copies, follows = Copies(), iter(following)

    def handler(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if next(follows):
            kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        return copies.of(call.layer)(*args, **kwargs)

    after = rebuilt(graph, handler)
    copies.copy_weights()
    # As tf_keras calls the outputs of subclassed models.
    after.output_names = _output_names(after._nested_outputs)
    return after


def _output_names(outputs: Any, path: tuple[str, ...] = ()) -> list[str]:
    """The names that tf_keras gives to the outputs of subclassed models: keys and numbers from 1, joined by "_"."""
    if not isinstance(outputs, dict | list | tuple):
        return ["_".join(path) or "output_1"]
    if not isinstance(outputs, dict):
        outputs = {f"{'' if path else 'output_'}{number}": one for number, one in enumerate(outputs, start=1)}
        return [name for key, one in outputs.items() for name in _output_names(one, (*path, key))]
    return [name for key in sorted(outputs) for name in _output_names(outputs[key], (*path, str(key)))]


def _input_specs(model: tf_keras.Model, input_shape: Any) -> Any:
    """What the model takes, as TensorSpecs in their structure, the batch's size unknown."""
    spec = model.save_spec()
    if spec is not None:
        (first, *others), named = spec
        if any(isinstance(other, tf.TensorSpec) for other in tf.nest.flatten((others, named))):
            raise ValueError(
                f"model {model.name!r}: got a call of several tensors, expected one; pass them in a list or dict"
            )
        return first
    shape = input_shape or model._build_input_shape
    if shape is None:
        raise ValueError(f"model {model.name!r} is not built; call it once on a batch")
    specs = _spec_of(shape)
    if not model.built:
        try:
            model(tf.nest.map_structure(lambda s: tf.zeros([size or 1 for size in s.shape], s.dtype), specs))
        except Exception as error:  # whatever the user's code raises
            raise ValueError(
                f"model {model.name!r}: got {type(error).__name__} at {blamed_line(error)} when called on zeros of the"
                f" shape {shape}, {reason(error)}; call it once on a batch that it takes"
            ) from error
    return specs


def _spec_of(shape: Any, name: str = "input_1") -> Any:
    if isinstance(shape, dict):
        return {key: _spec_of(one, key) for key, one in shape.items()}
    if any(isinstance(size, list | tuple | tf.TensorShape) for size in shape):
        return [_spec_of(one, f"input_{number}") for number, one in enumerate(shape, start=1)]
    return tf.TensorSpec((None, *shape[1:]), name=name)


def _is_functional(layer: Any) -> bool:
    return isinstance(layer, tf_keras.Model) and bool(layer._is_graph_network)


def _is_open(call: Call) -> bool:
    """Whether what a layer calls takes the place of its call: models, and layers of the user's without own weights."""
    layer = call.layer
    if isinstance(layer, tf_keras.Model):
        return True
    own = layer._trainable_weights or layer._non_trainable_weights
    return not own and type(layer).__module__.split(".")[0] != "tf_keras"


def _refuse_variables(_: Any, **__: Any) -> Any:
    raise ValueError("a variable, or a layer with weights, is made in each call; make it in the constructor")


def _loose_variables(model: tf_keras.Model, accessed: Sequence[Any]) -> list[Any]:
    """The variables that are computed with other than as weights of the layers that the model calls."""
    found = list(calls(model))
    reached = {id(weight) for call in found for weight in call.layer.weights}
    arguments = [leaf for call in found for leaf in tf.nest.flatten((call.args, call.kwargs))]
    taken = [*accessed, *(leaf for leaf in arguments if isinstance(leaf, tf.Variable))]
    return list({id(variable): variable for variable in taken if id(variable) not in reached}.values())


def _listed(variables: Sequence[Any]) -> str:
    return " and ".join(f"the variable {variable.name!r}" for variable in variables)


def _attributes(layer: Any, variables: Sequence[Any], separator: str = "") -> str:
    """A pattern for the attributes of a layer that are these variables or have them, if any, behind a separator."""
    ids = {id(variable) for variable in variables}
    names = [
        name
        for name, value in vars(layer).items()
        if id(value) in ids or (isinstance(value, tf_keras.layers.Layer) and ids & set(map(id, value.weights)))
    ]
    return rf"{separator}self\.({'|'.join(names)})\b" if names else ""


def _mention_in_layers(model: Any, pattern: str) -> str:
    """What `mention` finds in the calls of a model and of the layers and models of the user's inside it."""
    own = [layer for layer in model._flatten_layers() if type(layer).__module__.split(".")[0] != "tf_keras"]
    return next(filter(None, (mention(layer.call, pattern) for layer in own)), "")
