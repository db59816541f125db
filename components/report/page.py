"""The page: sections as HTML that needs no network, no script and no other file."""

import functools
import re
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from components.report.facts import Cell, Facts, Node
from components.report.sections import accuracy, sections, size, target, verdict

_TEMPLATES = Path(__file__).parent / "templates"
# What HTML forbids in a text however it is escaped.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def render(facts: Facts, pushed_to: str = "") -> str:
    """Returns the page; of the same facts always the same.

    Args:
      facts: The documents.
      pushed_to: Where the model was pushed; "" if it was not, or that is not known yet.
    """
    root = facts.root
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            name=root["integer_model"]["pipeline"].text or "model",
            target=root["compile_report"]["target"].text or root["integer_model"]["profile"].text,
            blessed=verdict.is_blessed(root),
            headline=_headline(root),
            pushed_to=pushed_to,
            sections=sections(root),
        )
    )
    return _CONTROL.sub("\ufffd", html)


def _headline(root: Node) -> list[tuple[str, Cell]]:
    return [*accuracy.headline(root), size.headline(root), *target.headline(root)]


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _picture
    return environment


def _picture(svg: str, label: str) -> Any:
    """The picture, named by the element with that id, which is also what its own ids begin with."""
    svg = re.sub(r"(\bid=\"|\burl\(#|href=\"#)", rf"\g<1>{label}-", svg)
    return markupsafe.Markup(svg.replace("<svg", f'<svg role="img" aria-labelledby="{markupsafe.escape(label)}"', 1))
