"""The command line: `python -m pipelines`."""

import dataclasses
import functools
import getpass
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

_STARTED_S = time.monotonic()

import click  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from pipelines import (  # noqa: E402
    cost_commands,
    gc_command,
    lineage_commands,
    model_commands,
    push_commands,
    report_command,
    schedule_commands,
)
from pipelines.metadata_connection import METADATA_HELP  # noqa: E402

if TYPE_CHECKING:
    from pipelines.config import PipelineConfig


class _Commands(click.Group):
    """Turns a user's mistake into one sentence and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            raise click.UsageError(str(error)) from error


@click.group(cls=_Commands)
def main() -> None:
    """Takes examples to a fully-integer, gated and traceable TFLite model."""


def _config_options(command: Any) -> Any:
    """What may be changed of a config, on the command line of whatever takes one."""
    for option in (
        click.option("--gate", "gates", multiple=True, help="A gate to add or replace, such as 'accuracy >= 0.98'."),
        click.option(
            "--io-dtype", multiple=True, help="Type of inputs and outputs: of all, or of one, as image=uint8."
        ),
        click.option("--target", help="Target to use instead of the config's; of several, the only one."),
        click.option("--scheme", help="Quantization scheme to use instead of the config's."),
        click.option("--strategy", help="How the float model becomes one of integers: qat, ptq or auto."),
        click.option(
            "--warm-start",
            is_flag=True,
            default=None,
            help="Begin float training with the weights of the last blessed model.",
        ),
        click.option("--examples", "examples_dir", help="Directory of TFRecord files of tf.Examples."),
        click.option("--beam", help="Beam runner of the components, a file in pipelines/beam_runners."),
        click.option("--beam-option", "beam_options", multiple=True, help="A setting of it, such as workers=2."),
        click.option("--spans", "span_pattern", help="Examples in spans, such as 'data/span-{SPAN}/*.tfrecord'."),
        click.option("--root", help="Directory for everything the run keeps; default: as the config says."),
        click.argument("config_name", metavar="CONFIG"),
    ):
        command = option(command)
    return command


def _blessing_options(command: Any) -> Any:
    """What may be changed of how a model is blessed, where a pipeline is run or will be."""
    for option in (
        click.option("--until", default="", help="The last day, by UTC, on which the overrides count: YYYY-MM-DD."),
        click.option("--by", default="", help="Who says so; kept likewise. Default: the user who runs this."),
        click.option("--because", default="", help="Why the model may pass; it is kept with the blessing."),
        click.option(
            "--override-gate",
            "overridden",
            multiple=True,
            help="A gate that the model need not keep, as it is written.",
        ),
        click.option("--bless-ungated", is_flag=True, help="Bless a model though no gate was held against it."),
        click.option("--require-compiled", is_flag=True, help="Bless only what the target's own compiler made."),
    ):
        command = option(command)
    return command


def _load(config_name: str, gates: tuple[str, ...], changes: dict[str, Any]) -> "PipelineConfig":
    from components.retraining.spans import SpanSource
    from pipelines.beam_runners import parse_beam_runner
    from pipelines.configs import load_config

    config = load_config(config_name).with_gates(gates)
    if target := changes.pop("target", None):
        config = config.for_target(target)
    override = [changes.pop(name, empty) for name, empty in (("overridden", ()), ("because", ""), ("until", ""))]
    config = config.with_overrides(*override, by=changes.pop("by", "") or _user())
    for flag in ("bless_ungated", "require_compiled"):
        if changes.pop(flag, False):
            config = config.with_each_gates(functools.partial(dataclasses.replace, **{flag: True}))
    changed = {name: value for name, value in changes.items() if value not in (None, ())}
    if "io_dtype" in changed:
        from pipelines.conversion import io_dtypes_of

        types = io_dtypes_of(changed["io_dtype"])
        changed["io_dtype"] = types.get("", types)
    if "span_pattern" in changed:
        given = {"window": config.spans.window} if config.spans else {}
        changed["spans"] = SpanSource(pattern=changed.pop("span_pattern"), **given)
    beam, beam_options = changed.pop("beam", ""), changed.pop("beam_options", ())
    if beam:
        changed |= {"beam": parse_beam_runner(beam, beam_options), "component_beam": {}}
    elif beam_options:
        raise ValueError("--beam-option without --beam; name the runner that it is of")
    if "strategy" in changed:
        changed["training"] = dataclasses.replace(config.training, strategy=changed.pop("strategy"))
    return dataclasses.replace(config, **changed)


def _load_for_run(config_name: str, gates: tuple[str, ...], changes: dict[str, Any]) -> "PipelineConfig":
    config = _load(config_name, gates, changes)
    _require_here(config)
    return config


def _require_here(config: "PipelineConfig") -> None:
    """Raises ValueError if the config cannot run on this machine."""
    from pipelines.local_compilers import require_compilers
    from pipelines.training_machines import require_one_machine

    require_one_machine(config, "a run on this machine")
    require_compilers(config)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container of a user without a name
        return ""


@main.command()
@_config_options
@_blessing_options
@click.option("--metadata", help=f"ML Metadata instead of the config's: {METADATA_HELP}.")
@click.option("--runner", default="local", show_default=True, help="Who executes the pipeline: local or beam.")
@click.option("--span", type=int, help="Of examples in spans: the newest to take; default: the newest complete one.")
@click.option("--again", is_flag=True, help="What an earlier run on the same span blessed is no baseline.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to write, last of all: what the run came to, as JSON.",
)
def run(
    config_name: str,
    runner: str,
    span: int | None,
    again: bool,
    report: Path | None,
    gates: tuple[str, ...],
    **changes: Any,
) -> None:
    """Runs the pipeline CONFIG, a file in pipelines/configs, on this machine.

    Exit status: 0 if the model is blessed and pushed, 3 if it is not blessed, 2 for a mistake in what was asked or if
    nothing could begin, 1 if a component failed.
    """
    from pipelines import runners
    from pipelines.exclusive import busy_status, exclusive_root

    runners.load_runner(runner)
    config = _load_for_run(config_name, gates, changes).with_window(span, again)
    with busy_status(), exclusive_root(config):
        from pipelines.local_run import run_and_show

        metadata = config.metadata_url if changes["root"] or changes["metadata"] else ""
        status = run_and_show(config, runner, metadata=metadata, started_s=_STARTED_S, report_file=report)
    sys.exit(status)


@main.command()
@_config_options
def examples(config_name: str, gates: tuple[str, ...], **changes: Any) -> None:
    """Writes the examples of CONFIG where its task can write them and they are missing, and checks them."""
    config = _load(config_name, gates, changes)
    from pipelines.progress import silent

    with silent():
        from pipelines.inputs import prepare_examples

        count = prepare_examples(config)
    click.echo(f"{count:,} examples checked in {config.examples_uri}")


@main.command("compile")
@_config_options
@_blessing_options
@click.option("--runner", required=True, help="The service that will run the pipeline: vertex or kubeflow.")
@click.option("--image", help="Container image of all components instead of the config's.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write: .json for `submit` and `doctor`, .yaml for the service's own tools.",
)
def compile_(
    config_name: str, runner: str, image: str | None, output: Path, gates: tuple[str, ...], **changes: Any
) -> None:
    """Compiles the pipeline CONFIG into a job for a service. Runs and reads nothing but the code."""
    from pipelines.runners import load_service

    service = load_service(runner)
    if output.suffix not in (".json", ".yaml", ".yml"):
        raise ValueError(f"--output {output}: expected a name that ends in .json or .yaml")
    config = _load(config_name, gates, changes)
    if image:
        config = dataclasses.replace(config, deployment=dataclasses.replace(config.deployment, image=image))
    from pipelines.job_spec import containers_of, write_whole
    from pipelines.progress import silent

    with silent():
        job = service.compile_job(config)
    is_json = output.suffix == ".json"
    write_whole(output, json.dumps(job, indent=2, sort_keys=True) + "\n" if is_json else service.package(job))
    python = "python -m pipelines"
    then = f"; check it with `{python} doctor {output}`, send it with `{python} submit {output}`" if is_json else ""
    click.echo(f"{output}: {len(containers_of(job))} containers for {runner}, root {config.root}{then}")


@main.command()
@click.argument("job_file", metavar="JOB", type=click.Path(path_type=Path))
@click.option("--project", default="", help="Vertex: Google Cloud project; default: that of the credentials.")
@click.option("--region", default="", help="Vertex: Google Cloud region, such as europe-west4.")
@click.option("--api-endpoint", default="", help="Vertex: host of its API, where it is another than the region's.")
@click.option("--host", default="", help="Kubeflow: URL of its Pipelines API.")
@click.option("--namespace", default="", help="Kubeflow: Kubernetes namespace.")
@click.option("--experiment", default="", help="Kubeflow: name of the experiment that the run belongs to.")
def submit(job_file: Path, **destination: str) -> None:
    """Sends the compiled JOB, a file that `compile` wrote, to the service that it was compiled for."""
    from pipelines.job_spec import read_job
    from pipelines.runners import Destination, service_of

    job = read_job(job_file)
    click.echo(f"{job_file} runs at {service_of(job).submit(job, Destination(**destination))}")


@main.command()
@click.argument("job_file", metavar="JOB", type=click.Path(path_type=Path))
def doctor(job_file: Path) -> None:
    """Checks that the compiled JOB could run with what is installed here; run it inside the image, too.

    Exit status: 0 if nothing stands in the way, 1 if something does, 2 if JOB is no compiled job.
    """
    from pipelines.doctor import examine
    from pipelines.job_spec import read_job

    job = read_job(job_file)
    console = Console(highlight=False)
    with console.status("looking"):
        findings = examine(job)
    for finding in findings:
        style = {"ok": "green", "warning": "yellow", "wrong": "red"}[finding.level]
        console.print(Text.assemble((finding.level.ljust(7), style), "  ", finding.message), soft_wrap=True)
    sys.exit(any(finding.level == "wrong" for finding in findings))


def _config_of_run(arguments: Sequence[str]) -> "PipelineConfig":
    """Returns the config that `run` would run with these arguments."""
    given = run.make_context("run", list(arguments)).params
    if given["span"] is not None or given["report"] is not None or given["again"]:
        raise ValueError("--span, --again and --report are of one run; leave them out")
    unchanged = ("config_name", "gates", "runner", "span", "again", "report")
    return _load(
        given["config_name"], given["gates"], {key: value for key, value in given.items() if key not in unchanged}
    )


def _config_of_scheduled_run(arguments: Sequence[str]) -> "PipelineConfig":
    config = _config_of_run(arguments)
    _require_here(config)
    return config


main.add_command(gc_command.gc_command(_config_of_run))
main.add_command(schedule_commands.schedule_command(_config_of_scheduled_run))
main.add_command(schedule_commands.schedule_job)
_COMMANDS = (
    *model_commands.COMMANDS,
    *push_commands.COMMANDS,
    *lineage_commands.COMMANDS,
    *report_command.COMMANDS,
    *cost_commands.COMMANDS,
)
for command in _COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.simplefilter("ignore")  # of libraries; tests run with warnings as errors
    main(prog_name="python -m pipelines")
