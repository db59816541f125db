"""The command line: `python -m pipelines`."""

import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

_STARTED_S = time.monotonic()

import click  # noqa: E402
from rich.console import Console  # noqa: E402


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


@main.command()
@click.argument("config_name", metavar="CONFIG")
@click.option("--runner", default="local", show_default=True, help="Who executes the pipeline: local or beam.")
@click.option("--root", help="Directory for everything the run keeps; default: as the config says.")
@click.option("--examples", help="Directory of TFRecord files of tf.Examples to use instead of the config's.")
@click.option("--scheme", help="Quantization scheme to use instead of the config's.")
@click.option("--target", help="Target to use instead of the config's.")
@click.option("--io-dtype", help="Type of the model's inputs and outputs, int8 or uint8, instead of the config's.")
@click.option("--gate", "gates", multiple=True, help="A gate to add or replace, such as 'accuracy >= 0.98'.")
def run(config_name: str, runner: str, examples: str | None, gates: tuple[str, ...], **changes: str | None) -> None:
    """Runs the pipeline CONFIG, a file in pipelines/configs.

    Exit status: 0 if the model is blessed and pushed, 3 if it is not blessed, 2 for a mistake in what was asked, 1 if a
    component failed.
    """
    from pipelines import runners
    from pipelines.configs import load_config
    from pipelines.exclusive import exclusive_root

    runners.require_runner(runner)
    config = load_config(config_name).with_gates(gates)
    changes["examples_dir"] = examples
    config = dataclasses.replace(config, **{name: value for name, value in changes.items() if value is not None})
    with exclusive_root(config):
        from pipelines.local_run import run_and_show

        status = run_and_show(
            config, runner, metadata=config.metadata_path if changes["root"] else "", started_s=_STARTED_S
        )
    sys.exit(status)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--metadata", help="SQLite file of ML Metadata; default: those of all configs.")
def lineage(file: Path, metadata: str | None) -> None:
    """Shows what produced the model FILE, back to the examples, and what became of it."""
    from pipelines.configs import config_names, load_config
    from pipelines.lineage import file_sha256
    from pipelines.lineage import lineage as trace
    from pipelines.metadata import MetadataStore

    sha256 = file_sha256(file)
    paths = [metadata] if metadata else [load_config(name).metadata_path for name in config_names()]
    paths = [path for path in paths if metadata or Path(path).exists()]
    if not paths:
        raise ValueError("no pipeline has run here; run one, or pass --metadata with the SQLite file of ML Metadata")
    readers = [MetadataStore(path) for path in paths]
    reader = next((reader for reader in readers if reader.models_with_sha256(sha256)), readers[0])
    # Wider than anything: a hash or reason that is cut off is of no use; a terminal wraps by itself.
    Console(width=10_000).print(trace(reader, sha256), soft_wrap=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.simplefilter("ignore")  # of libraries; tests run with warnings as errors
    main(prog_name="python -m pipelines")
