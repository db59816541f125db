"""Quantization schemes: how numbers become integers. One file per scheme, holding `SCHEME`."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator

from components.quantization import plugins

# Pairs of widths that the converter makes and a kernel of the stock TFLite interpreter runs. 32-bit activations are
# floats, and 16-bit weights beside them too.
_WIDTHS = ((8, 8), (4, 8), (8, 16), (8, 32), (16, 32))
# What an override does to the layers that it names, as the width of their weights; None: nothing is trained.
_ACTIONS: dict[str, int | None] = {"skip": None, "int8_weights": 8, "int4_weights": 4, "int16_activations": 8}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationScheme:
    """How the weights and activations of a model are represented.

    Attributes:
      name: The name of the scheme; the name of its file, for those that ship.
      weight_bits: Bits of a weight: 4 or 8 for integers, 16 for floats.
      activation_bits: Bits of an activation: 8 or 16 for integers, 32 for floats.
      per_axis_weights: One scale per output channel of a convolution, instead of one per tensor.
      overrides: Pairs of a regular expression, searched for in layer names, and what to do with such layers instead:
        "int8_weights" or "int4_weights" sets the width of their weights; "int16_activations" lets convolutions, Dense
        layers, softmax, sigmoid and tanh compute from 16-bit inputs to 16-bit outputs, with 8-bit weights; "skip"
        leaves them out of training, so that their weights are rounded and their ranges calibrated when the model is
        converted. The first match counts.
    """

    name: str
    weight_bits: int = 8
    activation_bits: int = 8
    per_axis_weights: bool = True
    overrides: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Checks everything at once; raises ValueError that lists all violations."""
        wrong = []
        if (self.weight_bits, self.activation_bits) not in _WIDTHS:
            wrong.append(
                f"{self.weight_bits}-bit weights with {self.activation_bits}-bit activations (weights and activations"
                f" of {', '.join(f'{weights} and {activations}' for weights, activations in _WIDTHS)} bits)"
            )
        elif self.overrides and not self.trained:
            wrong.append("overrides (none in a scheme that is not trained)")
        for index, override in enumerate(self.overrides):
            wrong += [f"overrides[{index}]: {violation}" for violation in _violations(override, self.activation_bits)]
        if wrong:
            raise ValueError(f"scheme {self.name!r}: got {'; '.join(wrong)}: change them to what is in brackets")

    @property
    def integer_only(self) -> bool:
        """Whether a model of this scheme computes in integers alone."""
        return self.activation_bits < 32

    @property
    def trained(self) -> bool:
        """Whether quantization-aware training knows this scheme; the others are applied to the float model."""
        return self.integer_only

    @property
    def all_weight_bits(self) -> tuple[int, ...]:
        """The widths of weights that occur, overrides included, in ascending order."""
        overridden = (_ACTIONS[action] for _, action in self.overrides)
        return tuple(sorted({self.weight_bits, *(bits for bits in overridden if bits is not None)}))

    @property
    def all_activation_bits(self) -> tuple[int, ...]:
        """The widths of activations that occur, overrides included, in ascending order."""
        overridden = {16 for _, action in self.overrides if action == "int16_activations"}
        return tuple(sorted({self.activation_bits, *overridden}))

    def activation_bits_of(self, layer: str) -> int:
        """Returns the width that the scheme asks for the inputs and outputs of the layer of that name.

        >>> QuantizationScheme(name="mine", overrides=(("^stem$", "int16_activations"),)).activation_bits_of("stem")
        16
        """
        return 16 if self._action(layer) == "int16_activations" else self.activation_bits

    def weight_bits_of(self, layer: str) -> int | None:
        """Returns the width of the weights of the layer of that name; None if the layer is left out of training.

        >>> QuantizationScheme(name="mine", overrides=(("^se_", "skip"),)).weight_bits_of("se_reduce") is None
        True
        """
        action = self._action(layer)
        return self.weight_bits if action is None else _ACTIONS[action]

    def require_all_matched(self, layers: Iterable[str]) -> None:
        """Checks that each override names a layer.

        Args:
          layers: The names of a model's layers, as they are quantized: those of its plan.

        Raises:
          ValueError: If some do not; lists them all.
        """
        names = tuple(layers)
        unmatched = [pattern for pattern, _ in self.overrides if not any(re.search(pattern, name) for name in names)]
        if unmatched:
            raise ValueError(
                f"scheme {self.name!r}: no layer's name matches the overrides {', '.join(map(repr, unmatched))}; the"
                f" layers are {', '.join(dict.fromkeys(names))}"
            )

    def _action(self, layer: str) -> str | None:
        return next((action for pattern, action in self.overrides if re.search(pattern, layer)), None)

    def to_json(self) -> str:
        """Returns the canonical JSON: sorted keys, no spaces. Part of a component's cache key."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "QuantizationScheme":
        """Reads what `to_json` wrote.

        Raises:
          ValueError: If the text is not JSON or its keys are not the attributes of a scheme.
        """
        try:
            values = json.loads(text)
            overrides = tuple(tuple(override) for override in values.pop("overrides", ()))
            return cls(**values, overrides=overrides)
        except (AttributeError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a quantization scheme: {text!r} ({error}); pass a scheme's to_json()") from error


def _violations(override: object, activation_bits: int) -> Iterator[str]:
    """What is wrong with one override."""
    match override:
        case (str(pattern), str(action)):
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"{pattern!r}, {error} (a regular expression)"
            if action not in _ACTIONS:
                yield f"{action!r} (one of {', '.join(_ACTIONS)})"
            elif _ACTIONS[action] is not None and (_ACTIONS[action], activation_bits) not in _WIDTHS:
                yield f"{action!r} beside {activation_bits}-bit activations (int8_weights or skip)"
            elif action == "int16_activations" and activation_bits == 16:
                yield f"{action!r} beside activations that have 16 bits already (int8_weights or skip)"
        case _:
            yield f"{override!r} (a pair of a regular expression and one of {', '.join(_ACTIONS)})"


def scheme_names() -> tuple[str, ...]:
    """Returns the names of the schemes that ship."""
    return plugins.member_names(__name__)


def load_scheme(scheme: str | QuantizationScheme) -> QuantizationScheme:
    """Returns the scheme of that name; a scheme is returned as it is.

    Raises:
      ValueError: If there is no scheme of that name.

    >>> load_scheme("full_int8").to_json()
    '{"activation_bits":8,"name":"full_int8","overrides":[],"per_axis_weights":true,"weight_bits":8}'
    """
    if isinstance(scheme, QuantizationScheme):
        return scheme
    loaded: QuantizationScheme = plugins.load_member(__name__, scheme, "scheme").SCHEME
    return loaded
