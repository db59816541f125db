"""The command that removes what no pushed model and none of the last runs needs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.config import PipelineConfig


def gc_command(config_of_run: "Callable[[Sequence[str]], PipelineConfig]") -> click.Command:
    """Returns the command `gc`.

    Args:
      config_of_run: Returns the config that `run` would use with some arguments; raises ValueError for a mistake.
    """

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.option("--keep", type=click.IntRange(min=1), required=True, help="Of so many last runs everything is kept.")
    @click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
    @click.argument("arguments", metavar="CONFIG [OPTIONS OF run]", nargs=-1, required=True, type=click.UNPROCESSED)
    def gc(arguments: tuple[str, ...], keep: int, dry_run: bool) -> None:
        """Removes artifacts of CONFIG that no pushed model was made from and none of its last runs refers to.

        A model is pushed as long as its version is in the push directory. What is removed is marked as deleted in ML
        Metadata, where all else that is known of it stays.
        """
        from pipelines.exclusive import exclusive_root

        config = config_of_run(arguments)
        with exclusive_root(config):
            from pipelines.retention import Retention

            retention = Retention(config)
            garbage = retention.garbage(keep)
            size_bytes = garbage.size_bytes
            if retention.unknown:
                click.echo(f"warning: {retention.unknown}", err=True)
            if dry_run:
                for directory in garbage.directories:
                    click.echo(str(directory))
            else:
                retention.remove(garbage)
        done = "would be removed" if dry_run else "removed"
        click.echo(f"{len(garbage.artifacts):,} artifacts, {size_bytes:,} bytes, {done}; {garbage.kept:,} are needed")

    return gc
