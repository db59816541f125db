"""The commands that read ML Metadata: lineage of a model, what changed between two, what was pushed when."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from pipelines.metadata_connection import METADATA_HELP

if TYPE_CHECKING:
    from pipelines.lineage.graph import Graph
    from pipelines.lineage.story import Lineage

# Wider than anything: a hash or reason that is cut off is of no use; a terminal wraps by itself.
_WIDTH = 10_000


class _ShowByDefault(click.Group):
    """Takes what is no command for the argument of `show`, so that `lineage FILE` is `lineage show FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
    metadata = click.option("--metadata", help=f"ML Metadata: {METADATA_HELP}; default: those of all configs.")
    return metadata(as_json(command))


@click.group(cls=_ShowByDefault)
def lineage() -> None:
    """Shows what produced a model and what became of it: `lineage MODEL`, the same as `lineage show MODEL`.

    MODEL is a file, whatever it is called now, the directory of a pushed version, a sha256 or at least the first six
    digits of one, or the id of a Model or PushedModel in ML Metadata.
    """


@lineage.command()
@click.argument("model")
@_options
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one self-contained page, too.")
def show(model: str, metadata: str | None, as_json: bool, html: Path | None) -> None:
    """Shows the lineage of MODEL: data, settings, code, metrics, verdicts, pushes, and whether its hashes chain up.

    Exit status: 0, also if the chain of hashes is broken, which is said; 2 if nobody knows the model.
    """
    if html is not None and not html.absolute().parent.is_dir():
        raise ValueError(f"--html: there is no directory {html.parent} to write {html.name} to; make it")
    (found,) = _traced(metadata, model)
    if html is not None:
        from pipelines.lineage.page import page_of

        html.write_text(page_of(found))
    if as_json:
        click.echo(found.to_json(), nl=False)
        return
    from pipelines.lineage.tree import tree_of

    Console(width=_WIDTH).print(tree_of(found), soft_wrap=True)


@lineage.command()
@click.argument("before")
@click.argument("after")
@_options
def diff(before: str, after: str, metadata: str | None, as_json: bool) -> None:
    """Shows what changed between two models: data, code, settings, versions, metrics and verdicts."""
    from pipelines.lineage.changes import changes_between, changes_json, changes_lines

    models = _traced(metadata, before, after)
    changes = changes_between(*models)
    click.echo(changes_json(*models, changes) if as_json else "\n".join(changes_lines(*models, changes)))


@lineage.command("list")
@_options
@click.option("--span", type=click.IntRange(min=0), help="Only models that were trained on this span.")
def list_(metadata: str | None, as_json: bool, span: int | None) -> None:
    """Shows which models were pushed when, the oldest first."""
    from pipelines.lineage.pushes import in_time, pushes_json, pushes_lines, pushes_of

    pushed = in_time(one for graph in _graphs(metadata) for one in pushes_of(graph))
    if span is not None:
        pushed = [one for one in pushed if span in one.spans]
    nothing = "nothing was pushed" if span is None else f"nothing that was trained on span {span} was pushed"
    click.echo(pushes_json(pushed) if as_json else "\n".join(pushes_lines(pushed) or [nothing]))


def _graphs(metadata: str | None) -> "list[Graph]":
    from pipelines.lineage.graph import Graph
    from pipelines.metadata import MetadataStore

    if metadata:
        return [Graph(MetadataStore(metadata))]
    urls, graphs, errors = _configured(), [], []
    if not urls:
        raise ValueError("no pipeline has run here; run one, or pass --metadata with where ML Metadata is")
    for url in urls:
        try:
            graphs.append(Graph(MetadataStore(url)))
        except ValueError as error:
            errors.append(error)
    if not graphs:
        raise errors[0]
    for error in errors:
        click.echo(f"warning: {error}; what it knows is left out", err=True)
    return graphs


def _configured() -> list[str]:
    """The stores of all configs, each once: names of one file or database may differ, and users."""
    from pipelines.configs import config_names, load_config
    from pipelines.metadata_connection import parse_connection
    from pipelines.metadata_opening import is_there

    by_place: dict[str, str] = {}
    for url in (load_config(name).metadata_url for name in config_names()):
        if is_there(url):
            by_place.setdefault(parse_connection(url).place, url)
    return list(by_place.values())


def _traced(metadata: str | None, *models: str) -> "list[Lineage]":
    from pipelines.lineage.find import find_model, require_file_or_number
    from pipelines.lineage.trace import trace

    for model in models:
        require_file_or_number(model)
    graphs = _graphs(metadata)
    return [trace(*find_model(graphs, model)) for model in models]


COMMANDS = (lineage,)
