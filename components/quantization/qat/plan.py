"""What quantization will do to every layer of a model, before anything is trained."""

import dataclasses
from typing import Any, Literal

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme, load_scheme

Action = Literal["quantize", "fold", "pass", "blocked"]

# Fused activations that tfmot 0.8.1 trains:
# https://github.com/tensorflow/model-optimization/blob/v0.8.0/tensorflow_model_optimization/python/core/quantization/keras/quantize_aware_activation.py
_FUSED_ACTIVATIONS = frozenset({"linear", "relu", "softmax", "sigmoid", "tanh", "gelu", "swish"})
_ACTIVATION_LAYERS = frozenset({"linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "gelu", "swish"})
# Layers into which the converter folds a BatchNormalization that follows.
_FOLDS_BATCH_NORMALIZATION = (
    tf_keras.layers.Conv2D,
    tf_keras.layers.DepthwiseConv2D,
    tf_keras.layers.Dense,
    tf_keras.layers.SeparableConv2D,
)
_REWRITTEN = (tf_keras.layers.SeparableConv1D, tf_keras.layers.SeparableConv2D)
_REMEDIES = {
    "BatchNormalization": "place it directly behind a Conv2D, DepthwiseConv2D or Dense without activation",
    "Lambda": "replace it by layers of tf_keras",
    "Multiply": "scale with a Conv2D or BatchNormalization",
    "Rescaling": "scale in the preprocessing_fn",
    "Normalization": "normalize in the preprocessing_fn",
    "MaxPooling1D": "reshape and use MaxPooling2D",
    "Conv1D": "reshape and use Conv2D",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """What happens to one layer.

    Attributes:
      name: Name of the layer.
      layer: Its class.
      action: "quantize": trained with fake quantization. "fold": merged into another layer by the converter. "pass":
        computes on the integers of its input. "blocked": cannot be trained.
      reason: Why; for a blocked layer, with its remedy.
      parameters: Number of its parameters.
    """

    name: str
    layer: str
    action: Action
    reason: str
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationPlan:
    """What quantization-aware training will do to a model.

    Attributes:
      scheme: The scheme.
      target: Name of the target that the scheme was checked against, None if none was.
      layers: One entry per layer, in the model's order.
    """

    scheme: QuantizationScheme
    target: str | None
    layers: tuple[LayerPlan, ...]

    @property
    def blockers(self) -> tuple[LayerPlan, ...]:
        """The layers that cannot be trained, all of them."""
        return tuple(layer for layer in self.layers if layer.action == "blocked")

    @property
    def coverage(self) -> float:
        """Share of the parameters, 0..1, that are trained as integers."""
        total = sum(layer.parameters for layer in self.layers)
        blocked = sum(layer.parameters for layer in self.blockers)
        return 1.0 if not total else (total - blocked) / total

    def __str__(self) -> str:
        """A table of the layers, one a line, and the coverage."""
        width = max((len(f"{layer.name} ({layer.layer})") for layer in self.layers), default=0)
        lines = [
            f"{f'{layer.name} ({layer.layer})'.ljust(width)}  {layer.action:8}  {layer.reason}" for layer in self.layers
        ]
        blocked = len(self.blockers)
        lines.append(f"{self.coverage:.1%} of the parameters are trained as integers, {blocked} layers blocked")
        return "\n".join(lines)


def plan(
    model: tf_keras.Model, scheme: str | QuantizationScheme = "full_int8", target: str | None = None
) -> QuantizationPlan:
    """Lists what quantization-aware training will do to every layer, with all blockers at once.

    Args:
      model: A built Sequential or Functional tf_keras model.
      scheme: A scheme or its name.
      target: Name of a target; the scheme must be one that it can run.

    Raises:
      ValueError: If the model is not such a model, or scheme and target do not fit or do not exist.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="dense")])
    >>> [(layer.name, layer.action) for layer in plan(model).layers]
    [('dense', 'quantize')]
    """
    scheme = load_scheme(scheme)
    if target is not None:
        load_profile(target).check(scheme)
    require_graph_model(model)
    registry = tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme(
        disable_per_axis=not scheme.per_axis_weights
    ).get_quantize_registry()
    layers = []
    for layer in model.layers:
        action, reason = _decide(layer, registry, model)
        layers.append(
            LayerPlan(
                name=layer.name,
                layer=type(layer).__name__,
                action=action,
                reason=reason,
                parameters=int(layer.count_params()),
            )
        )
    return QuantizationPlan(scheme=scheme, target=target, layers=tuple(layers))


def require_graph_model(model: Any) -> None:
    """Checks that a model can be quantized layer by layer.

    Raises:
      ValueError: If it is no built Sequential or Functional tf_keras model.
    """
    if not isinstance(model, tf_keras.Model):
        raise ValueError(
            f"model: got {type(model).__module__}.{type(model).__name__}, expected a tf_keras.Model; build it with"
            " tf_keras (Keras 2), not with tf.keras of TensorFlow >= 2.16, which is Keras 3"
        )
    if not isinstance(model, tf_keras.Sequential) and not model._is_graph_network:
        raise ValueError(
            f"model {model.name!r}: got a subclassed {type(model).__name__}, expected a Sequential or Functional model;"
            " build it from tf_keras.Input and layers"
        )
    if not model.built:
        raise ValueError(f"model {model.name!r} is not built; give its first layer an input_shape")


def _decide(layer: Any, registry: Any, model: Any) -> tuple[Action, str]:
    kind = type(layer).__name__
    if isinstance(layer, tf_keras.layers.InputLayer):
        return "quantize", "the input gets a quantizer"
    if isinstance(layer, tf_keras.Model):
        return "blocked", "a model inside a model cannot be annotated; call its layers one by one"
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        feeder = _single_feeder(layer, model)
        if type(feeder) in _FOLDS_BATCH_NORMALIZATION and _activation(feeder) == "linear":
            return "fold", f"folded into {feeder.name}"
        return "blocked", f"has no layer to be folded into; {_REMEDIES[kind]}"
    if type(layer) in _REWRITTEN:
        return "quantize", "split into a depthwise and a pointwise convolution"
    if not registry.supports(layer):
        return "blocked", f"tfmot trains no {kind}; {_REMEDIES.get(kind, 'replace it by a layer that tfmot trains')}"
    activation = _activation(layer)
    allowed = _ACTIVATION_LAYERS if isinstance(layer, tf_keras.layers.Activation) else _FUSED_ACTIVATIONS
    if activation is not None and activation not in allowed:
        return "blocked", f"tfmot trains no activation {activation!r} here; use one of {', '.join(sorted(allowed))}"
    if layer.weights:
        axis = "per axis" if _per_axis(layer, registry) else "per tensor"
        return "quantize", f"weights {axis}, activation per tensor"
    if registry.get_quantize_config(layer).get_output_quantizers(layer):
        return "quantize", "output per tensor"
    return "pass", "integers in, integers out"


def _activation(layer: Any) -> str | None:
    function = getattr(layer, "activation", None)
    if function is None:
        return None
    name = getattr(function, "__name__", None)
    return str(name) if name else type(function).__name__


def _single_feeder(layer: Any, model: Any) -> Any:
    """The layer that alone feeds this one and in this model feeds nothing else, or None."""
    edges = [
        (feeder, node.outbound_layer)
        for nodes in model._nodes_by_depth.values()
        for node in nodes
        for feeder in tf.nest.flatten(node.inbound_layers)
    ]
    feeders = [feeder for feeder, consumer in edges if consumer is layer]
    if len(feeders) != 1:
        return None
    alone = all(consumer is layer for feeder, consumer in edges if feeder is feeders[0])
    return feeders[0] if alone else None


def _per_axis(layer: Any, registry: Any) -> bool:
    config = registry.get_quantize_config(layer)
    quantizers = [quantizer for _, quantizer in config.get_weights_and_quantizers(layer)]
    return any(getattr(quantizer, "per_axis", False) for quantizer in quantizers)
