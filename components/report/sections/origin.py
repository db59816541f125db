"""Where the model comes from: the chain of files, the data, the settings; and what it was made with."""

import json

from components.report.facts import Node
from components.report.layout import Row, Section, row, table

_SETTINGS = ("pipeline", "task", "scheme", "training")
_FROM = {"float_model": "float", "integer_model": "int8", "compiled_model": "pushed"}


def lineage(root: Node) -> Section:
    """Returns the files by their sha256, each with its parent, and the settings."""
    rows = [
        row(name, root[key]["sha256"].cell(), root[key]["parent_sha256"].cell(missing="not recorded"))
        for key, name in _FROM.items()
        if root[key]
    ]
    broken = _broken(root)
    missing = [] if rows else ["Nothing is recorded of the files."]
    examples = [row(name.replace("_", " "), root["examples"][name].cell("d")) for name in root["examples"].names]
    if not examples:
        missing.append("Nothing is recorded of the examples.")
    settings = [one for one in (_setting(root, name) for name in _SETTINGS) if one is not None]
    tables = (
        table("Models, each with the one that it was made from", ("model", "sha256", "sha256 of its parent"), rows),
        table("Examples that were evaluated", ("fact", "value"), examples),
        table("Settings", ("setting", "value"), settings),
    )
    return Section(
        id="lineage",
        title="Lineage",
        notes=(broken,) if broken else (),
        missing=tuple(missing),
        tables=tuple(one for one in tables if one.rows),
    )


def environment(root: Node) -> Section:
    """Returns the versions of what made the file."""
    facts = root["compiled_model"] if root["compiled_model"] else root["integer_model"]
    rows = [
        row(name.removesuffix("_version").replace("_", " "), facts[name].cell())
        for name in facts.names
        if name.endswith("_version")
    ]
    if facts["compiler"]:
        rows.append(row("compiler", facts["compiler"].cell()))
    missing = () if rows else ("The versions of the toolchain are not recorded.",)
    tables = (table("Toolchain", ("what", "version"), rows),) if rows else ()
    return Section(id="environment", title="Environment", missing=missing, tables=tables)


def _broken(root: Node) -> str:
    """What is wrong with the chain; "" if nothing is."""
    made, parent = root["integer_model"]["sha256"].value, root["compiled_model"]["parent_sha256"].value
    if made and parent and made != parent:
        return "The chain is broken: the pushed file was not made from the int8 file that was evaluated."
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
