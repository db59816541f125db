"""Lineage as a tree for a terminal."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from components.quantization.calibration_set import CalibrationSet
from components.quantization.toolchain import SOURCES_NOTE
from pipelines.lineage.find import SHORT
from pipelines.lineage.story import BROKEN, INCOMPLETE, WHOLE, Data, Judgement, Lineage, Link, Node, Push

_COLOURS = {WHOLE: "green", INCOMPLETE: "yellow", BROKEN: "red"}


def tree_of(lineage: Lineage) -> Tree:
    """Returns the tree: verdicts and pushes first, then what the model is made of, its ancestors last."""
    tree = Tree(f"[bold]sha256 {lineage.sha256}[/bold]")
    target = f" for {lineage.target}" if lineage.target else ""
    reused = f", taken from the cache by {lineage.reused} later runs" if lineage.reused else ""
    tree.add(
        escape(f"{lineage.kind} Model #{lineage.id}{target} of pipeline {lineage.pipeline}, run {lineage.run}{reused}")
    )
    tree.add(escape(f"in ML Metadata at {lineage.store}"))
    judged = tree.add("[bold]judged by[/bold]" if lineage.judgements else "[bold]judged by nobody[/bold]")
    for judgement in lineage.judgements:
        _add_judgement(judged, judgement)
    pushed = tree.add("[bold]pushed[/bold]" if lineage.pushes else "[bold]not pushed[/bold]")
    for push in lineage.pushes:
        _add_push(pushed, push, lineage.sha256)
    colour = _COLOURS[lineage.chain_state]
    chain = tree.add(f"[bold]chain of hashes[/bold]: [{colour}]{lineage.chain_state}[/{colour}]")
    _add_lines(chain, map(_link_line, lineage.chain))
    _add_lines(chain, (f"broken: {problem}" for problem in lineage.problems), style="red")
    _add_lines(chain, (f"incomplete: {gap}" for gap in lineage.gaps), style="yellow")
    _add_group(tree, "metrics", lineage.metrics)
    _add_data(tree, lineage)
    settings = tree.add("[bold]settings[/bold]")
    for name, group in lineage.settings.items():
        _add_lines(settings, [f"{name}: {_compact(group)}"])
    _add_group(tree, "versions", lineage.versions, note=SOURCES_NOTE)
    if lineage.siblings:
        siblings = tree.add("[bold]from the same run[/bold]")
        _add_lines(
            siblings,
            (
                f"{one.kind} Model #{one.id} for {one.target or 'no target'}, {one.sha256[:SHORT]}"
                for one in lineage.siblings
            ),
        )
    _add_nodes(tree.add("[bold]made by[/bold]"), lineage)
    return tree


def judgement_line(judgement: Judgement) -> str:
    """Returns who judged when, and how."""
    verdict = "blessed" if judgement.blessed else "not blessed"
    return f"{judgement.component}, {judgement.at}: {verdict}"


def push_lines(push: Push, sha256: str) -> list[str]:
    """Returns what there is to say of a push of the model with a sha256."""
    target = f" for {push.target}" if push.target else ""
    replaced = push.replaced_version and f"replaced {push.replaced_version}"
    if replaced and push.replaced_sha256:
        replaced += f", sha256 {push.replaced_sha256}"
    by = f"replaced by {push.replaced_by}" if push.replaced_by else "not replaced since by another push"
    lines = [f"PushedModel #{push.id}{target}, {push.at}, run {push.run}, to {push.destination}"]
    if push.sha256 not in ("", sha256):
        lines.append(f"the same model, of another run, was there already; its file has sha256 {push.sha256}")
    nothing = "replaced nothing" if push.replaced_version is not None else "nobody recorded what it replaced"
    return [*lines, replaced or nothing, by]


def spans_text(spans: Sequence[int]) -> str:
    """Returns spans as people want them: "1, 2, 5"."""
    return ", ".join(map(str, spans))


def fingerprint_lines(data: Data) -> list[str]:
    """Returns the fingerprint of the files, of a window one for each span."""
    if data.span_fingerprints:
        return [f"span {span}: {one}" for span, one in zip(data.spans, data.span_fingerprints, strict=True)]
    return [data.fingerprint] if data.fingerprint else []


def calibration_line(one: CalibrationSet) -> str:
    """Returns which examples ranges are from."""
    where = f"split {one.split} of Examples #{one.artifact}"
    span = "" if one.span is None else f", span {one.span}"
    return (
        f"calibrated by {one.by} with {one.examples} examples of {where}{span}, seed {one.seed}, sha256 {one.sha256}"
        f" ({one.chosen})"
    )


def override_line(override: Mapping[str, str]) -> str:
    """Returns whom one may ask about an override."""
    by = override.get("by") or "somebody"
    return f"{by} overrides '{override['gate']}' until {override['until']} because {override['because']}"


def shown(value: Any) -> str:
    """Returns a value as people want it: six significant digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _add_judgement(branch: Tree, judgement: Judgement) -> None:
    colour = "green" if judgement.blessed else "red"
    node = branch.add(f"[{colour}]{escape(judgement_line(judgement))}[/{colour}]")
    _add_lines(node, judgement.reasons)
    _add_lines(node, map(override_line, judgement.overrides), style="yellow")


def _add_push(branch: Tree, push: Push, sha256: str) -> None:
    first, *others = push_lines(push, sha256)
    _add_lines(branch.add(escape(first)), others)


def _link_line(link: Link) -> str:
    return (
        f"{link.kind} #{link.id}  {link.sha256 or 'without a hash'}  {link.component}, {link.made_at}, file {link.file}"
    )


def _add_data(tree: Tree, lineage: Lineage) -> None:
    branch = tree.add("[bold]data and code[/bold]")
    for data in lineage.data:
        spans = f", span{'s' * (len(data.spans) > 1)} {spans_text(data.spans)}" if data.spans else ""
        what = f"Examples #{data.id} of {data.component}{spans}, splits {', '.join(data.splits)}"
        _add_lines(branch.add(escape(what)), fingerprint_lines(data))
    _add_lines(branch, map(calibration_line, lineage.calibration_sets))
    _add_lines(branch, (f"{name}: {shown(value)}" for name, value in lineage.origin.items()))


def _add_group(tree: Tree, name: str, values: Mapping[str, Any], note: str = "") -> None:
    if values:
        branch = tree.add(f"[bold]{name}[/bold]{f' ({note})' if note else ''}")
        _add_lines(branch, (f"{key}: {shown(value)}" for key, value in values.items()))


def _add_lines(branch: Tree, lines: Iterable[str], style: str = "") -> None:
    for line in lines:
        branch.add(escape(line), style=style or "none")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": ")) if isinstance(value, dict) else shown(value)


def _add_nodes(branch: Tree, lineage: Lineage) -> None:
    """The ancestors, each below what was made of it, and once."""
    nodes = {node.id: node for node in lineage.nodes}
    shown_already: set[int] = set()

    def add(node: Node, below: Tree) -> None:
        if node.id in shown_already:
            below.add(f"{_title(node)} (above)")
            return
        shown_already.add(node.id)
        here = below.add(_title(node))
        here.add(escape(node.uri), style="dim")
        if node.id in lineage.earlier_models:
            here.add("an earlier model, whose weights the training began with: ask for its own lineage")
            return
        taken = dict.fromkeys(one for ids in node.inputs.values() for one in ids)
        for one in sorted(taken, key=lambda one: (nodes[one].type != "Model", -one)):  # the nearest first
            add(nodes[one], here)

    add(lineage.nodes[0], branch)


def _title(node: Node) -> str:
    title = f"[cyan]{escape(node.type)}[/cyan] #{node.id}"
    if node.component:
        title += f" by [green]{escape(node.component)}[/green], {node.made_at}, {node.seconds:.1f} s"
    return title
