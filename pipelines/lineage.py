"""From a model file back to everything that made it."""

import contextlib
import hashlib
import json
import time
from pathlib import Path

from rich.markup import escape
from rich.tree import Tree

from pipelines.metadata import ArtifactRecord, ExecutionRecord, MetadataStore, Value

# Properties of TFX's own that say nothing about the artifact's content.
_PLUMBING = frozenset(
    {"name", "state", "tfx_version", "pipeline_name", "producer_component", "is_external", "__is_null__"}
)
_SHORT_HASH = 12


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes.

    Raises:
      ValueError: If there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}; give the path of a .tflite file")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lineage(reader: MetadataStore, sha256: str) -> Tree:
    """Returns the ancestry of the model file with this sha256, back to the examples, and what became of it.

    Raises:
      ValueError: If no model in the store has it.
    """
    models = reader.models_with_sha256(sha256)
    if not models:
        raise ValueError(
            f"no model with sha256 {sha256[:_SHORT_HASH]} is in this ML Metadata; was the file changed, or made by"
            " another pipeline? Pass --metadata for another store"
        )
    model = next((model for model in reversed(models) if _was_pushed(reader, model)), models[-1])
    tree = Tree(f"[bold]sha256 {sha256}[/bold]")
    _add_verdicts(reader, model, tree)
    _add_artifact(reader, model, tree.add("[bold]made by[/bold]"), shown=set())
    return tree


def _was_pushed(reader: MetadataStore, model: ArtifactRecord) -> bool:
    consumers = reader.consumers(model)
    return any(a.properties.get("pushed") == 1 for e in consumers for out in e.outputs.values() for a in out)


def _add_verdicts(reader: MetadataStore, model: ArtifactRecord, tree: Tree) -> None:
    for execution in reader.consumers(model):
        for artifacts in execution.outputs.values():
            for artifact in artifacts:
                branch = tree.add(_title(artifact, execution))
                _add_facts(branch, artifact)


def _add_artifact(reader: MetadataStore, artifact: ArtifactRecord, branch: Tree, shown: set[int]) -> None:
    execution = reader.producer(artifact)
    node = branch.add(_title(artifact, execution))
    if artifact.id in shown:
        node.label = f"{node.label} (above)"
        return
    shown.add(artifact.id)
    _add_facts(node, artifact)
    if execution is not None:
        sources = [source for artifacts in reader.inputs(execution).values() for source in artifacts]
        for source in sorted(sources, key=lambda source: (source.type != "Model", -source.id)):  # the nearest first
            _add_artifact(reader, source, node, shown)


def _title(artifact: ArtifactRecord, execution: ExecutionRecord | None) -> str:
    title = f"[cyan]{escape(artifact.type)}[/cyan] #{artifact.id}"
    if execution is not None:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(execution.started_s))
        title += f" by [green]{escape(execution.component)}[/green], {started}, {execution.seconds:.1f} s"
    return title


def _add_facts(branch: Tree, artifact: ArtifactRecord) -> None:
    branch.add(escape(artifact.uri), style="dim")
    facts = {name: value for name, value in artifact.properties.items() if name not in _PLUMBING and value != ""}
    if facts:
        branch.add("\n".join(f"{escape(name)}: {escape(_shown(value))}" for name, value in sorted(facts.items())))


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    text = str(value)
    if text.startswith('["'):
        with contextlib.suppress(json.JSONDecodeError):
            return "; ".join(str(item) for item in json.loads(text))
    return text
