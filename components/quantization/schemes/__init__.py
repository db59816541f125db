"""Quantization schemes: how numbers become integers. One file per scheme, holding `SCHEME`."""

import dataclasses
import json

from components.quantization import plugins


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationScheme:
    """How the weights and activations of a model are represented.

    Attributes:
      name: The name of the scheme; the name of its file, for those that ship.
      weight_bits: Bits of a weight.
      activation_bits: Bits of an activation.
      per_axis_weights: One scale per output channel of a convolution, instead of one per tensor.
    """

    name: str
    weight_bits: int = 8
    activation_bits: int = 8
    per_axis_weights: bool = True

    def __post_init__(self) -> None:
        if (self.weight_bits, self.activation_bits) != (8, 8):
            raise ValueError(
                f"scheme {self.name!r}: got {self.weight_bits}-bit weights and {self.activation_bits}-bit"
                " activations, expected 8 and 8, the widths that can be trained and converted; change them to 8"
            )

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
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a quantization scheme: {text!r} ({error}); pass a scheme's to_json()") from error


def scheme_names() -> tuple[str, ...]:
    """Returns the names of the schemes that ship."""
    return plugins.member_names(__name__)


def load_scheme(scheme: str | QuantizationScheme) -> QuantizationScheme:
    """Returns the scheme of that name; a scheme is returned as it is.

    Raises:
      ValueError: If there is no scheme of that name.

    >>> load_scheme("full_int8").to_json()
    '{"activation_bits":8,"name":"full_int8","per_axis_weights":true,"weight_bits":8}'
    """
    if isinstance(scheme, QuantizationScheme):
        return scheme
    loaded: QuantizationScheme = plugins.load_member(__name__, scheme, "scheme").SCHEME
    return loaded
