"""Conversion profiles: what a family of devices asks of a .tflite file. One file per profile, holding `PROFILE`."""

import dataclasses

from components.quantization import plugins, schemes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConversionProfile:
    """What the converter must respect, and what the audit checks afterwards.

    Attributes:
      name: The name of the profile, and of the target that uses it.
      per_channel_dense: Whether FULLY_CONNECTED weights may carry one scale per output channel. Converters since
        TensorFlow 2.16 emit that by default; many devices compute it wrongly or refuse it
        (https://github.com/tensorflow/tflite-micro/pull/2602).
      weight_bits: The widths of weights that the device computes with; 16 for floats.
      activation_bits: The widths of activations that the device computes with; 32 for floats.
    """

    name: str
    per_channel_dense: bool
    weight_bits: tuple[int, ...] = (8,)
    activation_bits: tuple[int, ...] = (8,)

    def check(self, scheme: schemes.QuantizationScheme) -> None:
        """Checks that the device can run a model of this scheme.

        Raises:
          ValueError: If it cannot; names the schemes that it can run.
        """
        if not self._runs(scheme):
            can_run = [name for name in schemes.scheme_names() if self._runs(schemes.load_scheme(name))]
            raise ValueError(
                f"target {self.name!r} cannot run scheme {scheme.name!r}: got weights of"
                f" {_listed(scheme.all_weight_bits)} bits and activations of {_listed(scheme.all_activation_bits)},"
                f" expected weights of {_listed(self.weight_bits)} and activations of {_listed(self.activation_bits)}"
                f" bits; choose one of {', '.join(can_run)}"
            )

    def _runs(self, scheme: schemes.QuantizationScheme) -> bool:
        weights, activations = set(scheme.all_weight_bits), set(scheme.all_activation_bits)
        return weights <= set(self.weight_bits) and activations <= set(self.activation_bits)


def _listed(widths: tuple[int, ...]) -> str:
    return " or ".join(str(width) for width in widths)


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
