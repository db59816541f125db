"""All steps of the surgery in their order, each followed by its proof."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import keras
import tf_keras

from components.quantization.surgery import (
    activations,
    arithmetic,
    checks,
    duplicates,
    inline,
    normalization,
    pooling,
    preprocessing,
    recurrent,
    separable,
)
from components.quantization.surgery.graph import Call, Rewriter, calls, rebuilt
from components.quantization.surgery.proof import require_same_function

_LOGGER = logging.getLogger(__name__)

# In this order: an earlier step may make what a later one rewrites.
_STEPS = (separable, pooling, recurrent, normalization, activations, arithmetic)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rewrite:
    """One layer that a step changed.

    Attributes:
      name: Name of the layer in the user's model.
      layer: Its class.
      step: What was done.
    """

    name: str
    layer: str
    step: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A model ready to be planned and quantized.

    Attributes:
      model: A functional tf_keras model without nested models; shares no layer with the user's where rewritten.
      rewrites: What was changed, in order.
    """

    model: tf_keras.Model
    rewrites: tuple[Rewrite, ...]


def prepare(model: tf_keras.Model | keras.Model) -> Prepared:
    """Returns the model as plain layers; the model itself is left alone.

    Args:
      model: A built Sequential, functional or subclassed model of tf_keras or of Keras 3.

    Raises:
      ValueError: If it cannot be rebuilt, or a step would change what it computes.
    """
    rewrites: list[Rewrite] = []
    current = _functional(model, rewrites)
    checks.require_float32(current)
    checks.require_known_activations(current)
    checks.require_float_pixels(current)
    checks.warn_of_losses(current)
    nested = [call for call in calls(current) if inline.applies(call)]
    if nested:
        current = _proved(current, inline.inlined, inline.TITLE)
        rewrites += [_rewrite(call, inline.TITLE) for call in nested]
    for step in _STEPS:
        concerned = [call for call in calls(current) if step.applies(call)]
        if concerned:
            current = _proved(current, functools.partial(_applied, step=step), step.TITLE)
            rewrites += [_rewrite(call, step.TITLE) for call in concerned]
    chains = preprocessing.chains(current)
    if chains:
        current = _proved(current, preprocessing.merged, preprocessing.TITLE)
        rewrites += [_rewrite(call, preprocessing.TITLE) for chain in chains for call in chain]
    equal = duplicates.duplicates(current)
    if equal:
        current = _proved(current, duplicates.merged, duplicates.TITLE)
        rewrites += [_rewrite(call, duplicates.TITLE) for call in equal]
    return Prepared(model=current, rewrites=tuple(rewrites))


def functional(model: Any) -> tf_keras.Model:
    """Returns the model as a functional one of tf_keras: captured or rebuilt, and proved to compute the same.

    Args:
      model: As in `prepare`; if it is functional or Sequential and of tf_keras, it is returned as it is.

    Raises:
      ValueError: If it is no built Keras model, or cannot be captured or rebuilt.
    """
    return _functional(model, [])


def _functional(model: Any, rewrites: list[Rewrite]) -> tf_keras.Model:
    """The model as a functional one of tf_keras; what rebuilds or captures it proves that it computes the same."""
    if isinstance(model, keras.Model) and not isinstance(model, tf_keras.Model):
        from components.quantization.surgery.keras3 import TITLE, from_keras3

        rewrites.append(Rewrite(name=model.name, layer=type(model).__name__, step=TITLE))
        return from_keras3(model)
    if not isinstance(model, tf_keras.Model):
        raise ValueError(
            f"model: got {type(model).__module__}.{type(model).__name__}, expected a Keras model; pass a built one"
        )
    if not isinstance(model, tf_keras.Sequential) and not model._is_graph_network:
        rewrites.append(Rewrite(name=model.name, layer=type(model).__name__, step="capture the call"))
        from components.quantization.surgery.subclassed import captured

        return captured(model)
    if not model.built or not model.inputs:
        raise ValueError(f"model {model.name!r} is not built; give its first layer an input_shape")
    return model


def _proved(before: tf_keras.Model, change: Callable[[tf_keras.Model], tf_keras.Model], title: str) -> tf_keras.Model:
    after = change(before)
    require_same_function(before, after, title)
    _LOGGER.info("%s: %s, proved to compute the same", before.name, title)
    return after


def _applied(model: tf_keras.Model, step: Any) -> tf_keras.Model:
    rewriter = Rewriter(model)

    def handler(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if step.applies(call):
            return step.rewrite(call, args, kwargs, rewriter)
        return rewriter.copy(call.layer)(*args, **kwargs)

    after = rebuilt(model, handler)
    rewriter.finish()
    return after


def _rewrite(call: Call, title: str) -> Rewrite:
    return Rewrite(name=call.layer.name, layer=type(call.layer).__name__, step=title)
