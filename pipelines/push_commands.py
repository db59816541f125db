"""The commands that take what was pushed: rollback and verify."""

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from components.push_destination import PushDestination


@click.command()
@click.argument("where", metavar="CONFIG|DIRECTORY")
@click.option("--to", "version", default="", help="The version; default: the one before the latest.")
@click.option("--list", "only_list", is_flag=True, help="Show the versions and change nothing.")
def rollback(where: str, version: str, only_list: bool) -> None:
    """Makes an earlier version the latest, and shows all there are, the one that was latest last being the last.

    The versions are those that the config CONFIG pushes, or those in DIRECTORY, on a disk or in an object store. The
    default is the version that was latest before this one was pushed; versions that were rolled back from are left out.
    The version is read and compared with its manifest first.
    """
    destination = _destination(where)
    from components.delivery.history import version_before

    moves, latest = destination.history(), destination.latest()
    versions = []
    for name in reversed(dict.fromkeys(move.version for move in reversed(moves))):
        try:
            manifest = destination.manifest(name)
        except ValueError as error:
            click.echo(str(error))
            continue
        if manifest is not None:
            versions.append(name)
            run, mark = manifest.run_id or "unknown", "  latest" if name == latest else ""
            click.echo(f"{name}  {manifest.pushed_at}  {manifest.size_bytes:>11,} bytes  run {run}{mark}")
    if only_list:
        return
    if version and version not in versions:
        raise ValueError(f"--to: got {version!r}, expected one of {', '.join(versions)}")
    version = version or version_before(moves, latest, versions)
    if not version:
        raise ValueError(f"{destination.uri}: nothing was pushed before {latest or 'anything'}; choose one with --to")
    destination.rollback(version)
    click.echo(f"{os.path.join(destination.uri, 'latest')} is now {version}, was {latest or 'nothing'}")


@click.command()
@click.argument("where", metavar="CONFIG|DIRECTORY")
@click.option("--version", default="", help="The version; default: the latest.")
def verify(where: str, version: str) -> None:
    """Compares the files of a pushed version with its manifest, and the pointer with the history.

    Exit status: 0 if they are as they were pushed, 1 if not.
    """
    destination = _destination(where)
    version = version or destination.latest()
    if not version:
        raise ValueError(f"{os.path.join(destination.uri, 'latest')} names no version; roll back to one")
    problems = destination.not_as_pushed(version)
    for problem in problems:
        click.echo(problem)
    if not problems:
        click.echo(f"{destination.path(version)}: all files are as they were pushed")
    sys.exit(bool(problems))


def _destination(where: str) -> "PushDestination":
    """Raises ValueError if nothing was pushed there."""
    from pipelines.configs import config_names, load_config

    uri = where
    if where in config_names():
        uri, *others = (plan.push_uri for plan in load_config(where).plans)
        if others:
            raise ValueError(f"{where}: pushes for several targets; give one directory: {', '.join((uri, *others))}")
    from components.push_destination import PushDestination

    destination = PushDestination(uri)
    if not destination.history():
        raise ValueError(
            f"{uri}: got nothing that was pushed, expected a config ({', '.join(config_names())}) or the directory that"
            " a pipeline pushes to"
        )
    return destination


COMMANDS = (rollback, verify)
