"""What a run takes and costs with a number of examples, on the machines of a plan."""

import dataclasses
import math

from pipelines.cost.growth import Measurements, Stage
from pipelines.cost.plan import Plan

_HOUR_S = 3600.0
_GB = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StageForecast:
    """A component's part of a run.

    Attributes:
      stage: The component's id.
      machine: Name of its kind of machine.
      hours: From the start of its machines to its end.
      price: Of all its machines, for so long.
      worker_gb: Memory of one of them, in units of 1e9 bytes.
    """

    stage: str
    machine: str
    hours: float
    price: float
    worker_gb: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """A run.

    Attributes:
      examples: How many it has.
      measured_hours: What it would take on the machine that was measured.
      stages: Its components; they run one after the other.
      stored_gb: What it leaves, in units of 1e9 bytes.
      storage_price: Of keeping that as long as the plan says.
    """

    examples: int
    measured_hours: float
    stages: tuple[StageForecast, ...]
    stored_gb: float
    storage_price: float

    @property
    def hours(self) -> float:
        """From the start of the first component to the end of the last."""
        return sum(stage.hours for stage in self.stages)

    @property
    def price(self) -> float:
        """Of all machines and of storage."""
        return sum(stage.price for stage in self.stages) + self.storage_price

    @property
    def worker_gb(self) -> float:
        """Memory that the largest machine needs."""
        return max(stage.worker_gb for stage in self.stages)


def forecast(measurements: Measurements, plan: Plan, examples: int) -> Forecast:
    """Returns what a run with so many examples takes.

    What a component takes for each example is shared out to its workers, each as fast as the plan says; what it takes
    whatever there is, is not. Memory, up to its limit, and bytes grow as measured.
    """
    stored_gb = sum(stage.written_bytes.at(examples) for stage in measurements.stages) / _GB
    return Forecast(
        examples=examples,
        measured_hours=sum(stage.seconds.at(examples) for stage in measurements.stages) / _HOUR_S,
        stages=tuple(_stage(stage, plan, examples) for stage in measurements.stages),
        stored_gb=stored_gb,
        storage_price=stored_gb * plan.storage_per_gb_month * plan.months_kept,
    )


def _stage(stage: Stage, plan: Plan, examples: int) -> StageForecast:
    name, machine = plan.machine_of(stage.name)
    seconds = stage.seconds.at(examples, machine.parts) / machine.speed + 60 * machine.start_minutes
    return StageForecast(
        stage=stage.name,
        machine=name,
        hours=seconds / _HOUR_S,
        price=seconds / _HOUR_S * machine.workers * machine.price_per_hour,
        worker_gb=min(
            stage.peak_bytes.at(examples, machine.workers) / _GB, plan.memory_limits_gb.get(stage.name, math.inf)
        ),
    )
