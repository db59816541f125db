"""Where the model comes from: the chain of files, the data, the settings; and what it was made with."""

import dataclasses
import json
from collections.abc import Mapping

from components.quantization.toolchain import SOURCES_NOTE
from components.report.facts import Node
from components.report.layout import Branch, Row, Section, row, table

_SETTINGS = ("pipeline", "task", "scheme", "training")
# Names of facts in facts.json and on the page.
_PUSHED = {"sha256": "sha256", "target": "target", "compiler": "by"}
_CALIBRATED = {"representative_examples": "examples", "representative_seed": "seed", "calibration": "method"}
_SOURCES: Mapping[str, Mapping[str, str]] = {
    "training examples": {
        "training_examples_sha256": "sha256",
        "examples_span": "span",
        "examples_fingerprint": "fingerprint",
    },
    "schema": {"schema_sha256": "sha256"},
    "transform": {"transform_sha256": "sha256"},
    "task": {"task": "module", "task_sha256": "sha256"},
    "base model": {"base_model_sha256": "sha256"},
    "earlier model, whose weights training began with": {"warm_start_model_sha256": "sha256"},
}


def lineage(root: Node) -> Section:
    """Returns what the pushed file was made of, as a tree, and the settings."""
    tree = _tree(root)
    broken = _broken(root)
    missing = [] if tree else ["Nothing is recorded of the files."]
    examples = [row(name.replace("_", " "), root["examples"][name].cell("d")) for name in root["examples"].names]
    if not examples:
        missing.append("Nothing is recorded of the examples.")
    settings = [one for one in (_setting(root, name) for name in _SETTINGS) if one is not None]
    tables = (
        table("Examples that were evaluated", ("fact", "value"), examples),
        table("Settings", ("setting", "value"), settings),
    )
    return Section(
        id="lineage",
        title="Lineage",
        notes=(broken,) if broken else (),
        missing=tuple(missing),
        tree=tree,
        tables=tuple(one for one in tables if one.rows),
    )


def _tree(root: Node) -> Branch | None:
    """The pushed file on top, and below each file what it was made of; None if no file is known."""
    made = [_float(root), _trained(root), _integer(root), _branch("pushed file", root["compiled_model"], _PUSHED)]
    tree: Branch | None = None
    for one in filter(None, made):
        children = one.children if tree is None else (tree, *one.children)
        tree = dataclasses.replace(one, children=children)
    return tree


def _branch(name: str, facts: Node, wanted: Mapping[str, str]) -> Branch | None:
    """A file with those of its facts that are recorded; None if none is."""
    found = tuple((called, facts[key].cell()) for key, called in wanted.items() if facts[key].value not in (None, ""))
    return Branch(name=name, facts=found) if found else None


def _float(root: Node) -> Branch | None:
    float_model = _branch("float model", root["float_model"], {"sha256": "sha256", "seed": "seed"})
    if float_model is None:
        return None
    # The integer model's facts have what went into the float model, too, and the span besides.
    parts = [_branch(name, root["integer_model"], wanted) for name, wanted in _SOURCES.items()]
    return dataclasses.replace(float_model, children=tuple(filter(None, parts)))


def _trained(root: Node) -> Branch | None:
    """The model between the float and the integer one; None if that was quantized after training."""
    parent = root["integer_model"]["parent_sha256"]
    if not parent.text or parent.value == root["float_model"]["sha256"].value:
        return None
    return Branch(name="model with fake quantization", facts=(("sha256", parent.cell()),))


def _integer(root: Node) -> Branch | None:
    """The integer file; what ranges were calibrated with only if any was."""
    integer = _branch("integer file", root["integer_model"], {"sha256": "sha256"})
    is_calibrated = bool(root["conversion"]["calibrated"].value)
    sample = _branch("calibration sample", root["integer_model"], _CALIBRATED) if is_calibrated else None
    return dataclasses.replace(integer, children=tuple(filter(None, (sample,)))) if integer else None


def environment(root: Node) -> Section:
    """Returns the versions of what made the file, and what the training ran on."""
    facts = root["compiled_model"] if root["compiled_model"] else root["integer_model"]
    rows = [
        row(name.removesuffix("_version").replace("_", " "), facts[name].cell())
        for name in facts.names
        if name.endswith("_version")
    ]
    if facts["training_platform"]:
        rows.append(row("training platform", facts["training_platform"].cell()))
    if facts["compiler"]:
        rows.append(row("compiler", facts["compiler"].cell()))
    missing = () if rows else ("The versions of the toolchain are not recorded.",)
    tables = (table(f"Toolchain; {SOURCES_NOTE}", ("what", "version"), rows),) if rows else ()
    return Section(id="environment", title="Environment", missing=missing, tables=tables)


def _broken(root: Node) -> str:
    """What is wrong with the chain; "" if nothing is."""
    made, parent = root["integer_model"]["sha256"].value, root["compiled_model"]["parent_sha256"].value
    if made and parent and made != parent:
        return "The chain is broken: the pushed file was not made from the integer file that was evaluated."
    return ""


def _setting(root: Node, name: str) -> Row | None:
    """A setting from the first document that has it; of several in one, each by its name."""
    documents = [root[key] for key in ("compiled_model", "integer_model", "float_model")]
    found = next((document[name] for document in documents if document[name].text), None)
    if found is None:
        return None
    cell = found.cell()
    try:
        values = json.loads(found.text)
    except ValueError:
        return row(name, cell)
    text = (
        ", ".join(f"{key} {json.dumps(value)}" for key, value in values.items())
        if isinstance(values, dict)
        else cell.text
    )
    return row(name, text)
