"""The page: sections as HTML that needs no network, no script and no other file."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from components.report.facts import FACTS_FILE, Cell, Facts
from components.report.layout import Section
from components.report.sections import accuracy, sections, size, target, verdict

_TEMPLATES = Path(__file__).parent / "templates"
# What HTML forbids in a text however it is escaped.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Heading:
    """What stands on top of a page.

    Attributes:
      title: Its title.
      headline: Figures with their names.
      made_of: Name of the file that holds the documents.
      badge: The verdict in a word or two; "" for none.
      is_good: Whether that is a good one.
      pushed_to: Where the model was pushed; "" for nowhere.
    """

    title: str
    headline: tuple[tuple[str, Cell], ...]
    made_of: str
    badge: str = ""
    is_good: bool = False
    pushed_to: str = ""


def render(facts: Facts, pushed_to: str = "") -> str:
    """Returns the page on a run; of the same facts always the same.

    Args:
      facts: The documents.
      pushed_to: Where the model was pushed; "" if it was not, or that is not known yet.
    """
    root = facts.root
    name = root["integer_model"]["pipeline"].text or "model"
    on = root["compile_report"]["target"].text or root["integer_model"]["profile"].text
    is_blessed = verdict.is_blessed(root)
    heading = Heading(
        title=f"{name} on {on}" if on else name,
        headline=(*accuracy.headline(root), size.headline(root), *target.headline(root)),
        made_of=FACTS_FILE,
        badge="Blessed" if is_blessed else "Not blessed",
        is_good=is_blessed,
        pushed_to=pushed_to,
    )
    return page(heading, sections(root))


def page(heading: Heading, shown: Sequence[Section]) -> str:
    """Returns a page of sections, at least one."""
    html = _environment().get_template("page.html.j2").render(heading=heading, sections=shown)
    return _CONTROL.sub("\ufffd", html)


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
