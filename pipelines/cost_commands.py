"""The command that says what a pipeline will cost: cost."""

from pathlib import Path

import click

_PLAN = Path(__file__).parent / "cost" / "plan.toml"
_EXAMPLES = tuple(10**power for power in range(4, 10))


@click.command()
@click.argument("measurements_file", metavar="MEASUREMENTS", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=_PLAN,
    help="Machines and prices, as TOML; default: an example whose prices are placeholders.",
)
@click.option("--examples", multiple=True, type=click.IntRange(min=1), help="For so many; default: 1e4 to 1e9.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file to write the page to.")
def cost(measurements_file: Path, plan_file: Path, examples: tuple[int, ...], output: Path | None) -> None:
    """Says what a run takes and costs with more examples, from MEASUREMENTS, a file that `make bench-scale` wrote."""
    from pipelines.cost.growth import Measurements
    from pipelines.cost.page import cost_page
    from pipelines.cost.plan import Plan
    from pipelines.job_spec import write_whole

    measurements = Measurements.read(measurements_file)
    plan = Plan.read(plan_file, [stage.name for stage in measurements.stages])
    given = [] if plan_file == _PLAN else [f"--plan {plan_file}"]
    given += [f"--examples {count}" for count in examples]
    given += [f"-o {output}"] if output else []
    command = " ".join(["python -m pipelines cost", str(measurements_file), *given])
    page = cost_page(measurements, plan, examples or _EXAMPLES, command)
    if output is None:
        click.echo(page, nl=False)
        return
    write_whole(output, page)
    click.echo(
        f"{output}: {len(measurements.stages)} components, measured with {max(measurements.examples):,} examples"
    )


COMMANDS = (cost,)
