"""Horizontal bars as a self-contained SVG, drawn without a library."""

import dataclasses
import html
import math
from collections.abc import Iterator, Sequence

_ROW, _LABEL, _BARS, _TEXT = 20, 300, 340, 220
_PLAIN, _NEGATIVE, _MARKED = "#4878a8", "#c05850", "#e0a030"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar.

    Attributes:
      label: What it is of; written to its left.
      value: Its length; an infinite one is drawn as long as the longest, one that is no number not at all.
      text: Its value in words, written to its right.
      marked: Whether it stands out.
    """

    label: str
    value: float
    text: str
    marked: bool = False


def bars(groups: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Returns an SVG of groups of bars, each with a title and a scale of its own; empty groups are left out.

    >>> bars((("t", [Bar(label="a", value=2.0, text="2"), Bar(label="b", value=-1.0, text="-1")]),)).count("<rect")
    3
    """
    lines: list[str] = []
    top = 0
    for title, group in groups:
        if group:
            lines.append(f'<text x="8" y="{top + 16}" font-weight="bold">{html.escape(title)}</text>')
            lines += _group(group, top + _ROW)
            top += _ROW * (len(group) + 2)
    width = _LABEL + _BARS + _TEXT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" font-family="sans-serif"'
            ' font-size="12">',
            f'<rect width="{width}" height="{top}" fill="white"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _group(group: Sequence[Bar], top: int) -> Iterator[str]:
    longest = max((abs(bar.value) for bar in group if math.isfinite(bar.value)), default=0.0) or 1.0
    for row, bar in enumerate(group):
        y = top + row * _ROW
        share = 0.0 if math.isnan(bar.value) else min(abs(bar.value) / longest, 1.0)
        colour = _MARKED if bar.marked else _NEGATIVE if bar.value < 0 else _PLAIN
        label = f'<text x="{_LABEL - 6}" y="{y + 14}" text-anchor="end">{html.escape(bar.label)}</text>'
        box = f'<rect x="{_LABEL}" y="{y + 3}" width="{share * _BARS:.1f}" height="14" fill="{colour}"/>'
        text = f'<text x="{_LABEL + share * _BARS + 6:.1f}" y="{y + 14}">{html.escape(bar.text)}</text>'
        yield label + box + text
