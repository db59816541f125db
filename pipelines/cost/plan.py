"""On which machines a pipeline's components would run, and what these cost: a TOML file of the user's."""

import dataclasses
import math
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A kind of machine.

    Attributes:
      stages: Ids of the components that run on it.
      price_per_hour: Of one machine.
      workers: How many of them share out the examples of a component.
      speed: How many times as fast one works as the machine that was measured.
      efficiency: What share of its speed a worker keeps beside others, above 0, at most 1.
      start_minutes: How long a component waits until its machines are there, and is charged for.
    """

    stages: tuple[str, ...]
    price_per_hour: float
    workers: int = 1
    speed: float = 1.0
    efficiency: float = 1.0
    start_minutes: float = 0.0

    def problems(self) -> list[str]:
        """Returns what is wrong."""
        wrong = [
            f"{name}={getattr(self, name)} (0 or more)"
            for name in ("price_per_hour", "start_minutes")
            if not 0 <= getattr(self, name) < math.inf
        ]
        wrong += [] if self.workers >= 1 else [f"workers={self.workers} (at least 1)"]
        wrong += [] if 0 < self.speed < math.inf else [f"speed={self.speed} (above 0)"]
        return [*wrong, *([] if 0 < self.efficiency <= 1 else [f"efficiency={self.efficiency} (above 0, at most 1)"])]

    @property
    def parts(self) -> float:
        """Into how many parts, as long as those of one worker alone, the examples are shared out."""
        return 1 + (self.workers - 1) * self.efficiency


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Machines and prices.

    Attributes:
      currency: Of all prices.
      placeholder: Whether the prices are not real ones yet.
      source: Where the prices are from, and of which day.
      storage_per_gb_month: Price of keeping 1e9 bytes for a month.
      months_kept: How long artifacts are kept.
      machines: By the name that the page has for them.
      memory_limits_gb: By the component's id, where its memory stops growing, in units of 1e9 bytes.
    """

    currency: str
    placeholder: bool
    source: str
    storage_per_gb_month: float
    months_kept: float
    machines: dict[str, Machine]
    memory_limits_gb: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, stages: Collection[str]) -> "Plan":
        """Reads a plan.

        Args:
          path: A TOML file like pipelines/cost/plan.toml.
          stages: Components that it must have a machine for.

        Raises:
          ValueError: For all that is wrong with it.
        """
        try:
            found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}; see pipelines/cost/plan.toml") from error
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is no TOML: {error}; see pipelines/cost/plan.toml") from error
        try:
            machines = {
                name: Machine(**{**fields, "stages": tuple(fields["stages"])})
                for name, fields in found.pop("machines").items()
            }
            plan = cls(**found, machines=machines)
            wrong = plan._problems(stages)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: a field is missing, unknown or of another type ({error}); see pipelines/cost/plan.toml"
            ) from error
        if wrong:
            raise ValueError(f"{path}: {'; '.join(wrong)}")
        return plan

    def machine_of(self, stage: str) -> tuple[str, Machine]:
        """Returns the machine of a component, with its name."""
        return next((name, machine) for name, machine in self.machines.items() if stage in machine.stages)

    def _problems(self, stages: Collection[str]) -> list[str]:
        wrong = [f"machine {name}: {text}" for name, machine in self.machines.items() for text in machine.problems()]
        wrong += [
            f"{name}={getattr(self, name)} (0 or more)"
            for name in ("storage_per_gb_month", "months_kept")
            if not 0 <= getattr(self, name) < math.inf
        ]
        limits = self.memory_limits_gb
        wrong += [f"memory limit of {name}: {limit} (above 0)" for name, limit in limits.items() if not limit > 0]
        planned = [stage for machine in self.machines.values() for stage in machine.stages]
        wrong += [f"memory limit of {name} (one of {', '.join(planned)})" for name in limits if name not in planned]
        wrong += [f"no machine for {stage} (in the stages of one)" for stage in stages if stage not in planned]
        twice = sorted({stage for stage in planned if planned.count(stage) > 1})
        return [*wrong, *(f"two machines for {stage} (one)" for stage in twice)]
