"""The command that runs a pipeline whenever a new span of examples is complete."""

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from components.retraining.scheduler import Scheduler
    from pipelines.config import PipelineConfig

HELD_STATUS = 3
STOPPED_STATUS = 128 + signal.SIGTERM
_LONGEST_POLL_S = 86400
_DIRECTORY, _FILE = click.Path(path_type=Path, file_okay=False), click.Path(path_type=Path, dir_okay=False)


def schedule_command(config_of_run: "Callable[[Sequence[str]], PipelineConfig]") -> click.Command:
    """Returns the command `schedule`.

    Args:
      config_of_run: Returns the config that `run` would use with some arguments; raises ValueError for a mistake.
    """

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.option(
        "--watch", "is_watching", is_flag=True, help="Go on until stopped; else end when nothing is left to do."
    )
    @click.option("--poll-s", default=10.0, show_default=True, help="Seconds between looks of --watch.")
    @click.option("--alert-url", envvar="TFX_QAT_ALERT_URL", default="", help="Webhook that is told each decision.")
    @click.option("--resume", is_flag=True, help="End a hold first: what was refused so far counts no more.")
    @click.option(
        "--retry",
        type=int,
        multiple=True,
        help="A quarantined span to run again; an older one is left to later windows.",
    )
    @click.option(
        "--forget", type=int, help="A span to take for one that never came, as one whose number was a mistake."
    )
    @click.option("--reason", default="", help="Why it is to be forgotten; it is kept with that decision.")
    @click.option("--status", "only_status", is_flag=True, help="Show what became of each span, and run nothing.")
    @click.option("--systemd", type=_DIRECTORY, help="Write a service and its timer there, and run nothing.")
    @click.option("--cron", type=_FILE, help="Write that crontab, and run nothing.")
    @click.option(
        "--every-minutes", type=click.IntRange(1, 60), default=5, show_default=True, help="How often these two look."
    )
    @click.argument("arguments", metavar="CONFIG [OPTIONS OF run]", nargs=-1, required=True, type=click.UNPROCESSED)
    def schedule(
        arguments: tuple[str, ...],
        is_watching: bool,
        poll_s: float,
        alert_url: str,
        resume: bool,
        retry: tuple[int, ...],
        forget: int | None,
        reason: str,
        only_status: bool,
        systemd: Path | None,
        cron: Path | None,
        every_minutes: int,
    ) -> None:
        """Runs CONFIG for each complete span that was not handled yet, the oldest first, one at a time.

        Where nothing is new it ends within a second. Exit status: 0 if nothing is left to do, 3 if there is and it is
        held, 2 for a mistake in what was asked, or if a run cannot begin.
        """
        shown = {"--status": only_status, "--systemd": systemd, "--cron": cron}
        done = {"--watch": is_watching, "--resume": resume, "--retry": retry, "--forget": forget is not None}
        _require_one([name for name, given in shown.items() if given], [name for name, given in done.items() if given])
        if not 0 < poll_s <= _LONGEST_POLL_S:
            raise ValueError(f"--poll-s {poll_s}: expected more than 0, at most {_LONGEST_POLL_S:,} s")
        if (forget is not None) != bool(reason.strip()):
            raise ValueError("--forget SPAN and --reason TEXT: give both or none")
        from pipelines import local_schedule

        config = config_of_run(arguments)
        if systemd or cron:
            _refuse_secret(config.name)
        scheduler = local_schedule.scheduler_of(config, arguments, alert_url)
        if only_status:
            click.echo("".join(f"{line}\n" for line in local_schedule.status(scheduler)), nl=False)
        if systemd:
            _write_systemd(config.name, arguments, systemd, every_minutes)
        if cron:
            _write_cron(config.name, arguments, scheduler.ledger.directory, cron, every_minutes)
        if any(shown.values()):
            return
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        signal.signal(signal.SIGTERM, _stop)
        for span in retry:
            scheduler.retry(span)
        if forget is not None:
            scheduler.forget(forget, reason.strip())
        if resume:
            scheduler.release()
        _work(scheduler, poll_s if is_watching else None, asked=bool(retry or resume or forget is not None))

    return schedule


def _require_one(shown: Sequence[str], done: Sequence[str]) -> None:
    """Raises ValueError if an option that runs nothing stands beside another; both kinds of files may be written."""
    if (shown and done) or ("--status" in shown and len(shown) > 1):
        raise ValueError(f"{', '.join([*shown, *done])}: {shown[0]} runs and changes nothing; ask for one only")


def _work(scheduler: "Scheduler", poll_s: float | None, asked: bool) -> None:
    """Lets the scheduler work, unless another one does, which will see to what was `asked` by files."""
    from components.retraining.directory_lock import HeldError
    from pipelines import local_schedule

    try:
        with scheduler.ledger.lock():
            local_schedule.work(scheduler, poll_s)
            if scheduler.held():
                sys.exit(HELD_STATUS)
    except HeldError:
        if not asked:
            raise
        click.echo("the scheduler that is at work goes on with that")


def _refuse_secret(name: str) -> None:
    """Raises ValueError if the webhook's URL was given by an option, which no file may have: who reads it has it."""
    if click.get_current_context().get_parameter_source("alert_url") is ParameterSource.COMMANDLINE:
        raise ValueError(f"--alert-url beside --systemd or --cron: leave it out, and {_environment_advice(name)}")


def _environment_advice(name: str) -> str:
    from components.retraining import timers

    file = timers.environment_file(name)
    variables = "TFX_QAT_ALERT_URL='...', and what else it needs of the environment"
    return f"put {variables}, into {file}, readable by its user alone"


@contextlib.contextmanager
def _told_of(option: str, path: Path) -> Iterator[None]:
    """Raises ValueError if the block cannot write what an option names."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{option} {path}: {error.strerror}; name a place where one can write") from error


def _write_systemd(name: str, arguments: Sequence[str], directory: Path, every_minutes: int) -> None:
    from components.retraining import timers

    command = [sys.executable, "-m", "pipelines", "schedule", *arguments]
    units = timers.systemd_units(name, command, Path.cwd(), every_minutes)
    with _told_of("--systemd", directory):
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in units.items():
            (directory / file).write_text(text)
    checked = timers.verify_systemd([directory / file for file in units])
    click.echo(f"{directory}: {', '.join(units)}, {checked}; {_environment_advice(name)}")


def _write_cron(name: str, arguments: Sequence[str], spans_dir: Path, file: Path, every_minutes: int) -> None:
    from components.retraining import timers

    command = [sys.executable, "-m", "pipelines", "schedule", *arguments]
    text = timers.crontab(name, command, Path.cwd(), spans_dir.absolute() / ".cron", every_minutes)
    with _told_of("--cron", file):
        file.write_text(text)
    how = f"install it with `crontab {file}`, which replaces what is there"
    click.echo(f"{file}: {how}; {_environment_advice(name)}")


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(STOPPED_STATUS)


@click.command("schedule-job")
@click.argument("job_file", metavar="JOB", type=click.Path(path_type=Path))
@click.option("--at", "cron", required=True, help="When, by UTC, in five fields of cron, such as '0 3 * * *'.")
@click.option("--catch-up", is_flag=True, help="Run later what could not be run in time.")
@click.option("--project", default="", help="Vertex: Google Cloud project.")
@click.option("--region", default="", help="Vertex: Google Cloud region, such as europe-west4.")
@click.option("--experiment-id", default="", help="Kubeflow: id of the experiment that its runs belong to.")
@click.option("-o", "--output", type=_FILE, required=True, help="The JSON file to write.")
def schedule_job(
    job_file: Path, cron: str, catch_up: bool, project: str, region: str, experiment_id: str, output: Path
) -> None:
    """Writes the request that makes a service run the compiled JOB, a file of `compile`, by a clock, one at a time."""
    from pipelines import service_schedules
    from pipelines.job_spec import RUNNER_LABEL, read_job, write_whole

    job = read_job(job_file)
    parent = f"projects/{project}/locations/{region}"
    if job.get("labels", {}).get(RUNNER_LABEL) == "kubeflow":
        body = service_schedules.kubeflow_recurring_run(job, cron=cron, experiment_id=experiment_id, catch_up=catch_up)
        url = "HOST/apis/v2beta1/recurringruns"
    else:
        body = service_schedules.vertex_schedule(job, cron=cron, parent=parent, catch_up=catch_up)
        url = f"https://{region}-aiplatform.googleapis.com/v1/{parent}/schedules"
    write_whole(output, json.dumps(body, indent=2, sort_keys=True) + "\n")
    click.echo(f"{output}: POST it to {url}")
