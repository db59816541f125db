"""The command that shows the page on a run, or on all of them: report."""

import dataclasses
from pathlib import Path

import click

from pipelines.metadata_connection import METADATA_HELP


@click.command()
@click.argument("config_name", metavar="CONFIG")
@click.option("--root", help="Directory of the run; default: as the config says.")
@click.option("--metadata", help=f"ML Metadata instead of the config's: {METADATA_HELP}.")
@click.option("--run", default="", help="Id of the run; default: the newest that came to an evaluation.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open the page in a browser.")
@click.option("--history", is_flag=True, help="Make the page on all runs of CONFIG in time instead: history.html.")
def report(config_name: str, root: str | None, metadata: str | None, run: str, opens: bool, history: bool) -> None:
    """Makes the page on a run of CONFIG anew, from what its artifacts hold, and opens it.

    Each target has a page of its own, below the root. The page that lies beside a pushed model is left as it is.
    """
    from pipelines.configs import load_config
    from pipelines.progress import silent

    if run and history:
        raise ValueError("--history is on all runs; leave --run out")
    given = {"root": root, "metadata": metadata}
    config = dataclasses.replace(load_config(config_name), **{name: value for name, value in given.items() if value})
    with silent():
        from pipelines.reports import write_history, write_reports

        written = [write_history(config)] if history else list(write_reports(config, run))
    if written[0].unevaluated:
        click.echo(
            f"the last run, {written[0].unevaluated[0]}, came to no evaluation; this is run {written[0].run}", err=True
        )
    for one in written:
        click.echo(one.uri)
        if opens and "://" not in one.uri:
            click.launch(Path(one.uri).absolute().as_uri())


COMMANDS = (report,)
