"""The page on what a pipeline costs, in Markdown."""

from collections.abc import Iterable, Sequence

from pipelines.cost.forecast import Forecast, forecast
from pipelines.cost.growth import Measurements
from pipelines.cost.plan import Plan

# The largest distance of a measurement from its line, above which the line says little.
_NOISE = 0.25
_ASSUMPTIONS = """\
- Time, memory and bytes are straight lines: a fixed part, and a part for each example. They are drawn through runs of
  {sizes} examples, so what stands below for more is beyond what was measured: by {farthest:,.0f} times at most. The
  column "off by" is the largest distance of a run from its line; a line can hold no better than that.
- An example is as large as those that were measured, and the model is the same. Other data need other measurements.
- Training takes as many epochs with more examples. A trainer reads up to 2 GiB of records into memory to sort them, and
  keeps the order of what is beyond, and a converter holds samples of fixed size: their memory ends where the plan says.
- In memory, Beam keeps what it computes with; on workers, each is taken to keep its share. Dataflow, Flink and Spark
  write to disks instead.
- Components run one after the other. A machine is paid from its start to the end of its component. Transfers between
  regions, requests to storage, retries and the service's own fee for a run are left out."""


def cost_page(measurements: Measurements, plan: Plan, examples: Sequence[int], command: str) -> str:
    """Returns the page.

    Args:
      measurements: What was measured.
      plan: Machines and prices.
      examples: For how many examples.
      command: What makes the page.
    """
    forecasts = [forecast(measurements, plan, count) for count in examples]
    measured = measurements.examples
    about = "; ".join(f"{name}: {text}" for name, text in measurements.about.items())
    sizes = ", ".join(f"{count:,}" for count in dict.fromkeys(measured))
    parts = [
        "# What a run costs, by the number of examples",
        f"Made by `{command}`, from what `make bench-scale` measured. {about}.",
        "## Measured",
        _table(
            (
                "component",
                "fixed s",
                "µs per example",
                "off by",
                "fixed MB",
                "bytes per example",
                "written per example",
            ),
            (
                (
                    stage.name,
                    f"{stage.seconds.fixed:.1f}",
                    f"{stage.seconds.per_example * 1e6:,.0f}",
                    f"{stage.seconds.deviation:.0%}",
                    f"{stage.peak_bytes.fixed / 1e6:,.0f}",
                    f"{stage.peak_bytes.per_example:,.0f}",
                    f"{stage.written_bytes.per_example:,.0f}",
                )
                for stage in measurements.stages
            ),
        ),
        *filter(None, [_noise(measurements)]),
        "Bytes per example are those of a process's memory; written are those of its artifacts.",
        "## Foreseen",
        _prices(plan),
        _table(
            ("examples", "hours as measured", "hours as planned", "GB of a worker", "GB stored", plan.currency),
            (_row(one) for one in forecasts),
        ),
        "## Where the money goes",
        _table(
            ("component", "machines", *(f"{count:,.0f}" for count in examples)),
            _shares(forecasts, plan),
        ),
        f"In {plan.currency}, by the number of examples.",
        "## Assumptions",
        _ASSUMPTIONS.format(sizes=sizes, farthest=max(examples) / max(measured)),
    ]
    return "\n\n".join(parts) + "\n"


def _noise(measurements: Measurements) -> str:
    """Says which components were measured too badly to say how long more examples take; "" if none was."""
    noisy = [stage.name for stage in measurements.stages if stage.seconds.deviation > _NOISE]
    if not noisy:
        return ""
    return f"**Off by more than {_NOISE:.0%}: {', '.join(noisy)}. Measure again, with nothing else on the machine.**"


def _prices(plan: Plan) -> str:
    if plan.placeholder:
        return f"**The prices are placeholders ({plan.source}): put your own into a copy of pipelines/cost/plan.toml.**"
    return f"Prices: {plan.source}."


def _row(one: Forecast) -> tuple[str, ...]:
    return (
        f"{one.examples:,}",
        _short(one.measured_hours),
        _short(one.hours),
        _short(one.worker_gb),
        _short(one.stored_gb),
        _short(one.price),
    )


def _shares(forecasts: Sequence[Forecast], plan: Plan) -> Iterable[tuple[str, ...]]:
    for index, stage in enumerate(forecasts[0].stages):
        machine = plan.machines[stage.machine]
        kind = f"{machine.workers} {stage.machine}"
        yield stage.stage, kind, *(_short(one.stages[index].price) for one in forecasts)
    yield "storage", "", *(_short(one.storage_price) for one in forecasts)


def _short(value: float) -> str:
    """Two digits, or all before the point.

    >>> [_short(value) for value in (0.0123, 1.26, 12.4, 12345.6, 0.0)]
    ['0.012', '1.3', '12', '12,346', '0']
    """
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
