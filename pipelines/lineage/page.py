"""Lineage as one HTML page: self-contained, without scripts, light or dark as the reader has it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from components.quantization.toolchain import SOURCES_NOTE
from pipelines.lineage.changes import flat
from pipelines.lineage.find import SHORT
from pipelines.lineage.story import WHOLE, Lineage, Node
from pipelines.lineage.tree import (
    calibration_line,
    fingerprint_lines,
    judgement_line,
    override_line,
    push_lines,
    shown,
    spans_text,
)

# Contrasts are above 7:1 for text and 4.5:1 for the marks, in both schemes: https://www.w3.org/TR/WCAG22/#contrast-minimum
_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --dim: #4a525c; --line: #c9d0d8;
        --good: #0b5d2a; --bad: #9b1c1c; --panel: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8ebee; --back: #14171a; --dim: #b4bcc5; --line: #3b434c; --good: #7ddc9f; --bad: #ffa3a3;
          --panel: #1e2328; } }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--text); background: var(--back);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: .75rem 0 0; }
code { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; color: var(--dim); }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
td code, th code { display: inline-block; min-width: 14ch; } .scroll { overflow-x: auto; }
@media (max-width: 48rem) { tbody th { overflow-wrap: anywhere; min-width: 6rem; } }
th { font-weight: 600; } ul { padding-left: 1.25rem; margin: .25rem 0; } .good { color: var(--good); }
.bad { color: var(--bad); } .good, .bad { font-weight: 600; }
details { background: var(--panel); padding: .5rem .75rem; margin: .5rem 0; } summary { cursor: pointer; }
@media print { details { background: none; } .scroll { overflow: visible; } th, td { overflow-wrap: anywhere; } }
"""

_LONG_WORD = re.compile(r"\S{41,}")  # as a hash, a path or a fingerprint: may be broken anywhere


def page_of(lineage: Lineage) -> str:
    """Returns the page."""
    name = f"Lineage of {lineage.sha256[:SHORT]}"
    sections = "".join(
        f'<section aria-labelledby="s{number}"><h2 id="s{number}">{escape(title)}</h2>{content}</section>\n'
        for number, (title, content) in enumerate(_sections(lineage))
        if content
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head>\n<body>\n{_header(lineage, name)}"
        f"<main>\n{sections}</main>\n</body></html>\n"
    )


def _header(lineage: Lineage, name: str) -> str:
    state = _mark(f"the chain of hashes is {lineage.chain_state}", "good" if lineage.chain_state == WHOLE else "bad")
    verdict = _mark("pushed", "good") if lineage.pushes else _mark("not pushed", "bad")
    what = f"{lineage.kind} model for {lineage.target or 'no target'}, pipeline {lineage.pipeline}, run {lineage.run}"
    return (
        f"<header><h1>{escape(name)}</h1><p>{escape(what)}: {verdict}; {state}</p>"
        f"<p><code>sha256 {escape(lineage.sha256)}</code></p>"
        f"<p>in ML Metadata at <code>{escape(lineage.store)}</code></p></header>\n"
    )


def _sections(lineage: Lineage) -> list[tuple[str, str]]:
    return [
        ("Verdicts", "".join(_judgements(lineage))),
        (
            "Pushes",
            "".join(_list(push_lines(push, lineage.sha256)) for push in lineage.pushes) or "<p>It was not pushed.</p>",
        ),
        ("Chain of hashes", _chain(lineage)),
        ("Metrics", _values("What was measured", lineage.metrics)),
        ("Data and code", _data(lineage) + _calibration(lineage) + _values("What it was made of", lineage.origin)),
        ("Settings", _values("What it was made with", flat(lineage.settings))),
        ("Versions", _values(f"What it was made by; {SOURCES_NOTE}", lineage.versions)),
        ("From the same run", _siblings(lineage)),
        ("Ancestors", "".join(map(_node, lineage.nodes))),
    ]


def _judgements(lineage: Lineage) -> Iterable[str]:
    if not lineage.judgements:
        yield "<p>Nobody judged it.</p>"
    for one in lineage.judgements:
        yield f"<h3>{_mark(judgement_line(one), 'good' if one.blessed else 'bad')}</h3>"
        yield _list([*one.reasons, *map(override_line, one.overrides)])


def _chain(lineage: Lineage) -> str:
    rows = [
        (f"{link.kind} #{link.id}", link.sha256, link.parent_sha256, f"{link.component}, {link.made_at}", link.file)
        for link in lineage.chain
    ]
    problems = "".join(
        f'<p class="bad">{title}:</p>{_list(of)}'
        for title, of in (("Broken", lineage.problems), ("Incomplete", lineage.gaps))
        if of
    )
    head = ("Model", "sha256", "of its parent", "Made by", "File")
    return problems + _table("Each model has its own hash and its parent's", head, rows)


def _data(lineage: Lineage) -> str:
    rows = [
        (f"#{one.id}", one.component, spans_text(one.spans), ", ".join(one.splits), "; ".join(fingerprint_lines(one)))
        for one in lineage.data
    ]
    return _table("Examples", ("Artifact", "Made by", "Spans", "Splits", "Fingerprint"), rows)


def _calibration(lineage: Lineage) -> str:
    sets = lineage.calibration_sets
    return "<p>No examples are recorded that calibrated it.</p>" if not sets else _list(map(calibration_line, sets))


def _siblings(lineage: Lineage) -> str:
    rows = [(f"{one.kind} #{one.id}", one.target, one.sha256) for one in lineage.siblings]
    return _table("Other models", ("Model", "Target", "sha256"), rows) if rows else ""


def _node(node: Node) -> str:
    taken = ", ".join(f"{key} #{one}" for key, ids in node.inputs.items() for one in ids)
    by = f" by {node.component}, {node.made_at}, {node.seconds:.1f} s" if node.component else ""
    facts = {"uri": node.uri, "run": node.run, "made of": taken, **node.properties}
    rows = {name: value for name, value in facts.items() if value != ""}
    title = _text(f"{node.type} #{node.id}{by}")
    return f"<details><summary>{title}</summary>{_values('What is recorded', rows)}</details>"


def _values(caption: str, values: Mapping[str, Any]) -> str:
    return _table(caption, ("Name", "Value"), list(values.items())) if values else ""


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    name = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}"><table><caption>{name}</caption>'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: Sequence[Any]) -> str:
    first, *others = map(_text, row)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{text}</td>" for text in others)


def _text(value: Any) -> str:
    return _LONG_WORD.sub(r"<code>\g<0></code>", escape(shown(value)))


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _mark(text: str, name: str) -> str:
    return f'<span class="{name}">{escape(text)}</span>'
