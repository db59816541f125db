"""The command that shows the page on a run, or on all of them: report."""

import dataclasses
from pathlib import Path

import click


@click.command()
@click.argument("config_name", metavar="CONFIG")
@click.option("--root", help="Directory of the run; default: as the config says.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open the page in a browser.")
@click.option("--history", is_flag=True, help="Make the page on all runs of CONFIG in time instead: history.html.")
def report(config_name: str, root: str | None, opens: bool, history: bool) -> None:
    """Makes the page on the last run of CONFIG anew, from what its artifacts hold, and opens it.

    Each target has a page of its own, below the root. The page that lies beside a pushed model is left as it is.
    """
    from pipelines.configs import load_config
    from pipelines.progress import silent

    config = load_config(config_name)
    if root:
        config = dataclasses.replace(config, root=root)
    with silent():
        from pipelines.reports import write_history, write_reports

        written = [write_history(config)] if history else list(write_reports(config))
    for one in written:
        click.echo(one.uri)
        if opens and "://" not in one.uri:
            click.launch(Path(one.uri).absolute().as_uri())


COMMANDS = (report,)
