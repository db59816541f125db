"""Conversion profiles: what a family of devices asks of a .tflite file. One file per profile, holding `PROFILE`."""

import dataclasses

from components.quantization import plugins
from components.quantization.schemes import QuantizationScheme


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConversionProfile:
    """What the converter must respect, and what the audit checks afterwards.

    Attributes:
      name: The name of the profile, and of the target that uses it.
      per_channel_dense: Whether FULLY_CONNECTED weights may carry one scale per output channel. Converters since
        TensorFlow 2.16 emit that by default; many devices compute it wrongly or refuse it
        (https://github.com/tensorflow/tflite-micro/pull/2602).
      weight_bits: The widths of weights that the device computes with.
      activation_bits: The widths of activations that the device computes with.
    """

    name: str
    per_channel_dense: bool
    weight_bits: tuple[int, ...] = (8,)
    activation_bits: tuple[int, ...] = (8,)

    def check(self, scheme: QuantizationScheme) -> None:
        """Checks that the device can run a model of this scheme.

        Raises:
          ValueError: If it cannot.
        """
        if scheme.weight_bits not in self.weight_bits or scheme.activation_bits not in self.activation_bits:
            raise ValueError(
                f"target {self.name!r} cannot run scheme {scheme.name!r}: got {scheme.weight_bits}-bit weights and"
                f" {scheme.activation_bits}-bit activations, expected {self.weight_bits} and {self.activation_bits}"
            )


def load_profile(profile: str | ConversionProfile) -> ConversionProfile:
    """Returns the profile of that name; a profile is returned as it is.

    Raises:
      ValueError: If there is no profile of that name.

    >>> load_profile("edge_tpu").per_channel_dense
    False
    """
    if isinstance(profile, ConversionProfile):
        return profile
    loaded: ConversionProfile = plugins.load_member(__name__, profile, "target").PROFILE
    return loaded
