"""The chain of hashes: each model has its own and its parent's, from the pushed file back to the float model."""

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.quantization.contract import TFLITE_FILE
from components.quantization.file_hash import sha256 as sha256_of
from components.quantization.origin_facts import EARLIER_MODELS
from pipelines.lineage.find import PUSHED, SHORT, serving_file
from pipelines.lineage.graph import Graph
from pipelines.lineage.story import Earlier, Link
from pipelines.metadata import ArtifactRecord, Value

AS_RECORDED, CHANGED, GONE, REMOTE, NOT_RECORDED = "as recorded", "changed", "gone", "remote", "not recorded"


def chain_of(graph: Graph, artifact: int) -> tuple[Link, ...]:
    """Returns the models that a model or a pushed one was made of, each of the next, and looks at their files."""
    links: list[Link] = []
    place: int | None = artifact
    while place is not None:
        graph.read_artifacts([place])
        maker = graph.makers([place]).get(place)
        links.append(_link(graph, graph.artifacts[place], maker))
        place = _parent(graph, place, maker) if maker is not None else None
    return tuple(links)


def problems_of(chain: Sequence[Link]) -> tuple[str, ...]:
    """Returns where the chain is broken, one sentence each; empty if it is whole."""
    found = [
        f"{_name(child)} says that it was made of {child.parent_sha256[:SHORT]}, but {_name(parent)}, which its maker"
        f" took, is {parent.sha256[:SHORT]}"
        for child, parent in itertools.pairwise(chain)
        if _differ(child.parent_sha256, parent.sha256)
    ]
    if chain and chain[-1].parent_sha256:
        found.append(f"{_name(chain[-1])} was made of {chain[-1].parent_sha256[:SHORT]}, which is not in this store")
    found += [
        f"{_name(link)}: its file is not the recorded one any more: {link.uri}"
        for link in chain
        if link.file == CHANGED
    ]
    found += [
        f"{_name(link)} says that its {one.taken_as} was {one.taken_sha256[:SHORT]}, but #{one.id}, which its maker"
        f" took, is {one.sha256[:SHORT]}"
        for link in chain
        for one in link.earlier
        if _differ(one.taken_sha256, one.sha256)
    ]
    return tuple(found)


def gaps_of(chain: Sequence[Link]) -> tuple[str, ...]:
    """Returns where nobody recorded a hash, so that nothing can be compared, one sentence each; empty if all are."""
    found = [f"nobody recorded the sha256 of {_name(link)}" for link in chain if not link.sha256]
    found += [
        f"nobody recorded the sha256 of what {_name(child)} was made of; {_name(parent)} is what its maker took"
        for child, parent in itertools.pairwise(chain)
        if not child.parent_sha256
    ]
    found += [
        f"nobody recorded the sha256 of #{one.id} as the {one.taken_as} of {_name(link)}, or with itself"
        for link in chain
        for one in link.earlier
        if not (one.taken_sha256 and one.sha256)
    ]
    return tuple(found)


def _differ(said: str, found: str) -> bool:
    """Whether two hashes were recorded, and are not the same."""
    return bool(said and found) and said != found


def _name(link: Link) -> str:
    return f"{link.kind or 'model'} #{link.id}"


def _parent(graph: Graph, artifact: int, maker: int) -> int | None:
    """What a converter, compiler or pusher took; of a quantized model the float one that was trained with it."""
    if taken := graph.inputs(maker).get("model"):
        return taken[0]
    beside = graph.outputs(maker).get("float_model", [artifact])[0]
    return beside if beside != artifact else None


def _link(graph: Graph, record: ArtifactRecord, maker: int | None) -> Link:
    facts = record.properties
    execution = graph.executions[maker] if maker is not None else None
    is_pushed = record.type == PUSHED
    size = facts.get("size_bytes", 0)
    return Link(
        id=record.id,
        kind="pushed" if is_pushed else str(facts.get("kind", "")),
        sha256=str(facts.get("sha256", "")),
        parent_sha256=str(facts.get("parent_sha256", "")),
        size_bytes=size if isinstance(size, int) else 0,
        uri=str(facts.get("pushed_destination", "")) if is_pushed else record.uri,
        component=execution.component if execution else "",
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(execution.started_s)) if execution else "",
        run=graph.runs([execution.id])[execution.id][1] if execution else "",
        file=_file_state(record),
        earlier=_earlier(graph, facts, maker) if maker is not None else (),
    )


def _earlier(graph: Graph, facts: Mapping[str, Value], maker: int) -> tuple[Earlier, ...]:
    """What a training took; a converter or compiler takes no such models."""
    taken = {key: graph.inputs(maker).get(key, []) for key in EARLIER_MODELS}
    graph.read_artifacts([one for ids in taken.values() for one in ids])
    return tuple(
        Earlier(
            id=one,
            taken_as=key,
            sha256=str(graph.artifacts[one].properties.get("sha256", "")),
            taken_sha256=str(facts.get(f"{key}_sha256", "")),
        )
        for key, ids in taken.items()
        for one in ids
    )


def _file_state(record: ArtifactRecord) -> str:
    """What became of a model's file."""
    facts = record.properties
    uri = str(facts.get("pushed_destination", "")) if record.type == PUSHED else record.uri
    if "://" in uri:
        return REMOTE
    path = serving_file(uri)
    if record.type == PUSHED:  # a SavedModel is read where the Pusher archived it: manifest.json is not beside it there
        path = Path(uri) / TFLITE_FILE if (Path(uri) / TFLITE_FILE).is_file() else Path(record.uri)
    if not path.exists() or not Path(uri).exists():
        return GONE
    if not facts.get("sha256"):
        return NOT_RECORDED
    return AS_RECORDED if facts["sha256"] == sha256_of(path) else CHANGED
