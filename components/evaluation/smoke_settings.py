"""What a model must keep to in the smoke test. Light: a config is made of it without TensorFlow."""

import dataclasses
import json

from components.evaluation.smoke_process import Limits


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SmokeSettings:
    """What is asked of a model, whatever its target.

    Attributes:
      file_bytes: Largest size of the file, and of the pushed one; None for any.
      arena_bytes: Largest arena; None for any. It is that of TFLite's own kernels for this CPU: activations, scratch
        and states. That of TFLite Micro is about as large, but laid out by another planner.
      max_lsb: Largest difference of an output from the golden one, in steps of its integers (of floats, in float32
        steps), with the kernels that depend on the CPU; None for any: one output may differ by a third of its range and
        be right, so that all of them together are held against what golden outputs vary by. From the reference kernels,
        which are the same everywhere, any difference refuses a model.
      limits: Of each run.
    """

    file_bytes: int | None = None
    arena_bytes: int | None = None
    max_lsb: float | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raises ValueError for what nothing can keep to."""
        given = {"file_bytes": self.file_bytes, "arena_bytes": self.arena_bytes, **dataclasses.asdict(self.limits)}
        wrong = [f"{name}={value}" for name, value in given.items() if value is not None and not value > 0]
        wrong += [f"max_lsb={self.max_lsb}"] if self.max_lsb is not None and not self.max_lsb >= 0 else []
        if wrong:
            raise ValueError(f"smoke test: got {', '.join(wrong)}, expected more than 0, for max_lsb 0 or more")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Smoke(SmokeSettings):
    """All that is asked of a model.

    Attributes:
      profile: Name of the target that the audit is for.
    """

    profile: str

    @classmethod
    def of(cls, profile: str, settings: SmokeSettings) -> "Smoke":
        """Returns the settings for a target."""
        fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(SmokeSettings)}
        return cls(profile=profile, **fields)

    def to_json(self) -> str:
        """Returns it as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Smoke":
        """Reads what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "limits": Limits(**fields["limits"])})
