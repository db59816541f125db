"""Weights of an earlier model as the start of a training: layer by layer, where they fit."""

import dataclasses
import json
import logging
from typing import Any

import tf_keras

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LayerMatch:
    """What became of one layer.

    Attributes:
      layer: Its name.
      taken: Whether it has the earlier model's weights now.
      reason: Why, with shapes.
    """

    layer: str
    taken: bool
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WarmStart:
    """A report on all layers with weights.

    Attributes:
      layers: One entry for each, in the model's order; then those that only the earlier model has.
    """

    layers: tuple[LayerMatch, ...]

    @property
    def taken(self) -> int:
        """How many layers have the earlier model's weights."""
        return sum(layer.taken for layer in self.layers)

    def to_json(self) -> str:
        """Returns the report as indented JSON."""
        return json.dumps([dataclasses.asdict(layer) for layer in self.layers], indent=1) + "\n"

    def __str__(self) -> str:
        """The layers, one a line."""
        width = max((len(layer.layer) for layer in self.layers), default=0)
        return "\n".join(
            f"{one.layer.ljust(width)}  {'taken' if one.taken else 'new':5}  {one.reason}" for one in self.layers
        )


def take_weights(model: tf_keras.Model, source: tf_keras.Model) -> WarmStart:
    """Gives the layers of a model the weights of layers of the same name and shapes of another.

    Args:
      model: The model; changed.
      source: The earlier model.

    Returns:
      What became of each layer that has weights.

    Raises:
      ValueError: If not one layer fits.
    """
    sources = _weighted(source)
    layers = []
    for name, layer in _weighted(model).items():
        found = sources.pop(name, None)
        wanted = [tuple(weight.shape) for weight in layer.weights]
        shapes = [] if found is None else [tuple(weight.shape) for weight in found.weights]
        if found is None:
            match = LayerMatch(layer=name, taken=False, reason="the earlier model has no layer of this name")
        elif shapes != wanted:
            match = LayerMatch(layer=name, taken=False, reason=f"shapes are {wanted}, the earlier model's {shapes}")
        else:
            layer.set_weights(found.get_weights())
            match = LayerMatch(layer=name, taken=True, reason=f"{layer.count_params()} parameters")
        layers.append(match)
    layers += [LayerMatch(layer=name, taken=False, reason="only the earlier model has it") for name in sources]
    report = WarmStart(layers=tuple(layers))
    if not report.taken:
        raise ValueError(
            f"warm start: no layer of the earlier model {source.name!r} fits {model.name!r}; give layers the same"
            f" names, or start without it\n{report}"
        )
    _LOGGER.info("warm start: %d of %d layers take the earlier model's weights", report.taken, len(layers))
    return report


def _weighted(model: tf_keras.Model) -> dict[str, Any]:
    """The innermost layers with weights of their own by name; those inside another with its name before theirs."""
    found: dict[str, Any] = {}

    def collect(outer: Any, prefix: str) -> None:
        for layer in outer.layers:
            if isinstance(layer, tf_keras.Model):
                collect(layer, f"{prefix}{layer.name}/")
            elif layer.weights:
                found[f"{prefix}{layer.name}"] = layer

    collect(model, "")
    return found
