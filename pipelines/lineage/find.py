"""Which model is meant: by its file, by a hash or by a number."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from components.quantization.contract import TFLITE_FILE
from components.quantization.contract.file_metadata import FileMetadata, find_metadata
from components.quantization.file_hash import sha256 as sha256_of
from pipelines.lineage.graph import Graph
from pipelines.metadata import ArtifactRecord

MODEL, PUSHED = "Model", "PushedModel"
SHORT = 12
_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_DIRECTORY = "Format-Serving"
_ID = re.compile(r"[0-9]{1,18}")  # an int64 in ML Metadata; what has more digits may begin a hash


def find_model(graphs: Sequence[Graph], what: str) -> tuple[Graph, ArtifactRecord]:
    """Returns the model that is meant, and the store that knows it.

    Of several artifacts of the same bytes it is the one that was pushed last, else the newest.

    Args:
      graphs: The stores to look in.
      what: A file, the directory of a pushed version, a SavedModel, a sha256 or at least the first six digits of one,
        or the id of an artifact.

    Raises:
      ValueError: If none of them knows it, or several do; of a file then says which known model it is most like.
    """
    require_file_or_number(what)
    if (path := _file_of(what)) is not None:
        return _by_file(graphs, path)
    if _is_id(what):
        for graph in graphs:
            graph.read_artifacts([int(what)])
        if knowing := [graph for graph in graphs if int(what) in graph.artifacts]:
            graph = _only(knowing, f"artifact {what}")
            return graph, _as_model(graph, graph.artifacts[int(what)])
    if not _PREFIX.fullmatch(what.lower()):
        raise ValueError(f"no artifact {what} is in this ML Metadata; pass --metadata for another store")
    return _by_prefix(graphs, what.lower())


def require_file_or_number(what: str) -> None:
    """Raises ValueError, before any store is opened, if something is no file that is there, hash or number."""
    if _file_of(what) is not None or _is_id(what) or _PREFIX.fullmatch(what.lower()):
        return
    is_directory = bool(what) and Path(what).is_dir()
    there = f"directory {what} has no file {TFLITE_FILE} and is no SavedModel" if is_directory else f"no file {what!r}"
    raise ValueError(
        f"{there}; give the path of a .tflite file or of a pushed version's directory, at least six digits of its"
        " sha256, or the id of an artifact in ML Metadata"
    )


def _file_of(what: str) -> Path | None:
    """The file or SavedModel that is meant; None if none is. "" is not the working directory."""
    path = Path(what)
    if path.is_dir() and what:
        if (path / TFLITE_FILE).is_file():
            return path / TFLITE_FILE
        return path if (path / "saved_model.pb").is_file() else None
    return path if path.is_file() else None


def _is_id(what: str) -> bool:
    return _ID.fullmatch(what) is not None


def serving_file(uri: str) -> Path:
    """Returns where the TFLite file or SavedModel of a local Model artifact is."""
    directory = Path(uri) / _DIRECTORY
    return directory / TFLITE_FILE if (directory / TFLITE_FILE).is_file() else directory


def _by_file(graphs: Sequence[Graph], path: Path) -> tuple[Graph, ArtifactRecord]:
    sha256 = sha256_of(path)
    said = find_metadata(path.read_bytes()) if path.is_file() else None
    run_id = said.identity.run_id if said else ""
    # What a file says of itself may be wrong. It is where to look first, so as not to read all models.
    for read in (lambda graph: graph.of_run(run_id), lambda graph: graph.of_type(MODEL)):
        found = [
            (graph, one) for graph in graphs for one in _models(read(graph)) if one.properties.get("sha256") == sha256
        ]
        if found:
            return _foremost_in_one(found, f"{path}, sha256 {sha256[:SHORT]},")
    unknown = f"{path}: no model with sha256 {sha256[:SHORT]} is in this ML Metadata"
    nearest = _nearest(graphs, said) if said else None
    if said is None or nearest is None:
        raise ValueError(f"{unknown}; was it changed, or made by another pipeline? Pass --metadata for another store")
    graph, near = nearest
    known = str(near.properties["sha256"])[:SHORT]
    raise ValueError(
        f"{unknown}; the nearest known model is #{near.id} in {graph.url}, sha256 {known}, which has the same UUID"
        f" {said.model_uuid}, but the bytes differ: {_difference(path, serving_file(near.uri))}; use that one"
    )


def _nearest(graphs: Sequence[Graph], said: FileMetadata) -> tuple[Graph, ArtifactRecord] | None:
    """The newest model that is the same by the UUID in the file, one of the run that the file names before others."""
    all_models = [(graph, model) for graph in graphs for model in _models(graph.artifacts.values())]
    same = [one for one in all_models if one[1].properties.get("content_sha256") == said.content_sha256]
    of_run = {(graph, model.id) for graph in graphs for model in graph.of_run(said.identity.run_id)}
    return max(same, key=lambda one: ((one[0], one[1].id) in of_run, one[1].id), default=None)


def _difference(path: Path, known: Path) -> str:
    """How the bytes of a file differ from those of a known one."""
    if not known.is_file():
        return "the known file is not here to say where"
    ours, theirs = (np.frombuffer(file.read_bytes(), np.uint8) for file in (path, known))
    both = min(ours.size, theirs.size)
    differing = np.flatnonzero(ours[:both] != theirs[:both])
    first = int(differing[0]) if differing.size else both
    sizes = f"there are {ours.size:,} instead of {theirs.size:,}, and " if ours.size != theirs.size else ""
    return f"{sizes}{differing.size:,} of {both:,} are others, the first at {first:,}"


def _by_prefix(graphs: Sequence[Graph], prefix: str) -> tuple[Graph, ArtifactRecord]:
    found = [
        (graph, model)
        for graph in graphs
        for model in _models(graph.of_type(MODEL))
        if str(model.properties.get("sha256", "")).startswith(prefix)
    ]
    if not found:
        raise ValueError(f"no model with sha256 {prefix} is in this ML Metadata; pass --metadata for another store")
    hashes = sorted({str(model.properties["sha256"]) for _, model in found})
    if len(hashes) > 1:
        raise ValueError(
            f"{prefix} begins the sha256 of {len(hashes)} models; give more of it: {', '.join(hashes[:4])}"
        )
    return _foremost_in_one(found, f"sha256 {hashes[0][:SHORT]}")


def _foremost_in_one(found: Sequence[tuple[Graph, ArtifactRecord]], what: str) -> tuple[Graph, ArtifactRecord]:
    graph = _only([graph for graph, _ in found], what)
    return graph, _foremost(graph, [model for _, model in found])


def _only(knowing: Iterable[Graph], what: str) -> Graph:
    """The store that knows something; raises ValueError if several do: ids, and what became of a model, are of one."""
    graph, *others = dict.fromkeys(knowing)
    if others:
        urls = ", ".join(one.url for one in (graph, *others))
        raise ValueError(f"{what} is in more than one ML Metadata; choose one by --metadata: {urls}")
    return graph


def _as_model(graph: Graph, artifact: ArtifactRecord) -> ArtifactRecord:
    """The model that an artifact is, or that was pushed as it."""
    if artifact.type == PUSHED:
        maker = graph.makers([artifact.id])[artifact.id]
        return graph.artifacts[graph.inputs(maker)["model"][0]]
    if artifact.type != MODEL:
        raise ValueError(f"artifact {artifact.id} is of type {artifact.type}; give that of a Model or PushedModel")
    return artifact


def _foremost(graph: Graph, models: Sequence[ArtifactRecord]) -> ArtifactRecord:
    ids = [model.id for model in models]
    pushers = graph.takers(ids, ("model",))
    graph.edges_of_executions(pushers)
    pushed = [
        graph.inputs(pusher)["model"][0]
        for pusher in pushers
        for artifacts in graph.outputs(pusher).values()
        for one in artifacts
        if is_push(graph.artifacts[one])
    ]
    return graph.artifacts[pushed[-1] if pushed else max(ids)]


def is_push(artifact: ArtifactRecord) -> bool:
    """Whether an artifact stands for a model that was pushed; of one that was refused there is one, too."""
    return artifact.type == PUSHED and artifact.properties.get("pushed") == 1


def _models(artifacts: Iterable[ArtifactRecord]) -> list[ArtifactRecord]:
    return [one for one in artifacts if one.type == MODEL]
