"""TargetPlan: what one trained model becomes for one of several targets."""

import dataclasses
from collections.abc import Mapping

from components import targets
from components.evaluation.gates import Gates
from components.evaluation.smoke_settings import SmokeSettings
from components.quantization.conversion import io_dtypes
from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TargetPlan:
    """One target of a pipeline with several.

    Attributes:
      target: Where the model will run.
      io_dtype: Type of the model's inputs and outputs, of all or by name; "" for the usual one of the scheme.
      when_missing: Without the target's compiler: "analyze" or "fail".
      compiler_options: Options of the target's compiler, of the target's own type; None for its defaults.
      gates: What the model must keep to be blessed for this target; None for the gates of the pipeline.
      push_dir: Where blessed models go; "" for a directory named after the target, where the pipeline's would go.
      smoke: What the smoke test asks of the model.
    """

    target: str
    io_dtype: str | Mapping[str, str] = ""
    when_missing: str = "analyze"
    compiler_options: targets.Options | None = None
    gates: Gates | None = None
    push_dir: str = ""
    smoke: SmokeSettings = dataclasses.field(default_factory=SmokeSettings)

    def resolved(self, gates: Gates, push_uri: str, suffix: str) -> "ResolvedPlan":
        """Returns the plan with nothing left open.

        Args:
          gates: Those of the pipeline, for a plan without its own.
          push_uri: Where blessed models go.
          suffix: What the ids of its components end with.
        """
        return ResolvedPlan(
            target=self.target,
            io_dtype=self.io_dtype,
            when_missing=self.when_missing,
            compiler_options=self.compiler_options,
            gates=gates if self.gates is None else self.gates,
            push_uri=push_uri,
            smoke=self.smoke,
            suffix=suffix,
        )

    def problems(self, scheme: QuantizationScheme) -> list[str]:
        """Returns what is wrong with it, a sentence each.

        Args:
          scheme: What all targets of the pipeline must run.
        """
        found = []
        try:
            targets.require_target(self.target)
            load_profile(self.target).check(scheme)
            io_dtypes.require(self.io_dtype, scheme)
            targets.require_when_missing(self.when_missing)
        except ValueError as error:
            found.append(str(error))
        return found


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedPlan:
    """A TargetPlan in its pipeline, with what it left to that.

    Attributes:
      target: As in TargetPlan.
      io_dtype: As in TargetPlan.
      when_missing: As in TargetPlan.
      compiler_options: As in TargetPlan.
      gates: What the model must keep.
      push_uri: Where blessed models go.
      smoke: As in TargetPlan.
      suffix: What the ids of its components end with; "" in a pipeline with one target.
    """

    target: str
    io_dtype: str | Mapping[str, str]
    when_missing: str
    compiler_options: targets.Options | None
    gates: Gates
    push_uri: str
    smoke: SmokeSettings
    suffix: str


def component_suffix(target: str) -> str:
    """Returns what the ids of a target's components end with, of letters and "-" alone, as services want them.

    >>> component_suffix("edge_tpu")
    '-edge-tpu'
    """
    return "-" + target.replace("_", "-")
