"""Data and models that benchmarks need and the repository does not hold."""

from collections.abc import Sequence
from pathlib import Path

import click

shared_option = click.option(
    "--shared",
    type=click.Path(path_type=Path),
    default=Path("../shared"),
    show_default=True,
    help="Directory with data/cifar10 and models/mlperf_tiny.",
)


def require_there(shared: Path, patterns: Sequence[str]) -> None:
    """Raises ClickException if a directory has no file of one of some patterns."""
    missing = [pattern for pattern in patterns if not list(shared.glob(pattern))]
    if missing:
        raise click.ClickException(f"{shared} has no {', no '.join(missing)}; say with --shared where they are")
