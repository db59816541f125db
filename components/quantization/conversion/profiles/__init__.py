"""Conversion profiles: what a family of devices asks of a .tflite file. One file per profile, holding `PROFILE`."""

import dataclasses

from components.quantization import plugins, schemes
from components.quantization.conversion.op_versions import VersionProblem, cause, is_known, minimum_runtime, workaround

# Types of activations, and their widths.
_BITS = {"INT8": 8, "UINT8": 8, "INT16": 16, "FLOAT32": 32}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConversionProfile:
    """What the converter must respect, and what the audit checks afterwards.

    Attributes:
      name: The name of the profile, and of the target that uses it.
      per_channel_dense: Whether FULLY_CONNECTED weights may carry one scale per output channel. Converters since
        TensorFlow 2.16 emit that by default; many devices compute it wrongly or refuse it
        (https://github.com/tensorflow/tflite-micro/pull/2602).
      per_channel_weights: Whether weights of convolutions may carry one scale per output channel. If not, every
        weight has one scale, and schemes with `per_axis_weights` are refused: a model that was trained with a scale
        per channel is another model with one.
      weight_bits: The widths of weights that the device computes with; 16 for floats.
      activation_types: The types of activations that the device computes with, by their names in the schema. UINT8 is
        that of models of TensorFlow 1; a model with UINT8 edges alone computes in INT8.
      max_runtime: The op-version ceiling: the newest TensorFlow whose ops the device's parser knows, as (major, minor,
        patch); None if it follows TensorFlow.
      allowed_custom_ops: Names of the custom ops that the device's runtime brings.
    """

    name: str
    per_channel_dense: bool
    per_channel_weights: bool = True
    weight_bits: tuple[int, ...] = (8,)
    activation_types: tuple[str, ...] = ("INT8", "UINT8")
    max_runtime: tuple[int, int, int] | None = None
    allowed_custom_ops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks types and granularities; raises ValueError if there is no such type, or the granularities differ."""
        if self.per_channel_dense and not self.per_channel_weights:
            raise ValueError(
                f"profile {self.name!r}: got per_channel_dense=True with per_channel_weights=False, expected a scale"
                " per channel nowhere; set per_channel_dense=False"
            )
        unknown = sorted(set(self.activation_types) - _BITS.keys())
        if unknown:
            raise ValueError(
                f"profile {self.name!r}: got activation_types {', '.join(unknown)}, expected some of {', '.join(_BITS)}"
            )

    @property
    def activation_bits(self) -> tuple[int, ...]:
        """The widths of activations that the device computes with, in ascending order; 32 for floats."""
        return tuple(sorted({_BITS[dtype] for dtype in self.activation_types}))

    def check(self, scheme: schemes.QuantizationScheme) -> None:
        """Checks that the device can run a model of this scheme.

        Raises:
          ValueError: If it cannot; names all that is wrong, and the schemes that it can run.
        """
        wrong = []
        if not self._has_widths_of(scheme):
            wrong.append(
                f"got weights of {_listed(scheme.all_weight_bits)} bits and activations of"
                f" {_listed(scheme.all_activation_bits)}, expected weights of {_listed(self.weight_bits)} and"
                f" activations of {_listed(self.activation_bits)} bits"
            )
        if not self._has_granularity_of(scheme):
            wrong.append("got a scale per output channel of a weight, expected one scale per weight")
        if wrong:
            can_run = [name for name in schemes.scheme_names() if self._runs(schemes.load_scheme(name))]
            raise ValueError(
                f"target {self.name!r} cannot run scheme {scheme.name!r}: {'; '.join(wrong)}; choose one of"
                f" {', '.join(can_run)}"
            )

    def version_problem(self, code: str, version: int) -> VersionProblem | None:
        """Returns why the device's parser refuses an op of this version; None if it knows the op.

        Args:
          code: The name of a builtin op in the schema, for example "CONV_2D". Custom ops have no such versions.
          version: Its version.

        >>> load_profile("edge_tpu").version_problem("CONV_2D", 3) is None
        True
        >>> load_profile("edge_tpu").version_problem("CONV_2D", 6).reason  # doctest: +ELLIPSIS
        "CONV_2D version 6 is a grouped convolution, known since TensorFlow 2.9.0; target 'edge_tpu' knows ops..."
        """
        if self.max_runtime is None or is_known(code, version, self.max_runtime):
            return None
        needed = minimum_runtime(code, version)
        known_since = f"known since TensorFlow {_dotted(needed)}" if needed else "newer than the TensorFlows known here"
        reason = (
            f"{code} version {version} is {cause(code, version)}, {known_since}; target {self.name!r} knows ops up to"
            f" TensorFlow {_dotted(self.max_runtime)}"
        )
        return VersionProblem(reason=reason, fix=workaround(code, version))

    def _runs(self, scheme: schemes.QuantizationScheme) -> bool:
        return self._has_widths_of(scheme) and self._has_granularity_of(scheme)

    def _has_widths_of(self, scheme: schemes.QuantizationScheme) -> bool:
        weights, activations = set(scheme.all_weight_bits), set(scheme.all_activation_bits)
        return weights <= set(self.weight_bits) and activations <= set(self.activation_bits)

    def _has_granularity_of(self, scheme: schemes.QuantizationScheme) -> bool:
        return self.per_channel_weights or not scheme.per_axis_weights or scheme.weight_bits > 8


def _listed(widths: tuple[int, ...]) -> str:
    return " or ".join(str(width) for width in widths)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(str(number) for number in version)


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
