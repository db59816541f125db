"""Charts as inline SVG: bars with intervals, lines and histograms, in colours that the page's style sheet sets.

Matplotlib draws with stand-ins for the colours, which become CSS variables, so that one picture suits light, dark and
paper. The same values give the same bytes.
"""

import contextlib
import dataclasses
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, FAINT = "#010203", "#040506"
SERIES = ("#070809", "#0a0b0c", "#0d0e0f", "#101112")
MARKED = SERIES[1]
_COLOURS = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    **{stand_in: f"var(--series-{number})" for number, stand_in in enumerate(SERIES, 1)},
}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's colour
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a layer may have a dollar in its name
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}
# Inches.
_WIDTH = 7.0
_BELOW = 0.48  # for numbers and the name of the axis
_LEGEND = 0.28  # a row of it
_CHARACTER = 0.078  # of the font below
_LABEL_CHARACTERS = 32
_UPRIGHT_CHARACTERS = 4  # that fit above a column of a matrix
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A bar.

    Attributes:
      label: Its name.
      value: Its length.
      text: The value as the page shows it.
      low: Lower end of its interval; None for none.
      high: Upper end of its interval.
      marked: Whether it stands out.
    """

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    marked: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line.

    Attributes:
      label: Its name.
      values: Its values; None leaves a gap.
      first: Where the first one is; the others follow at each whole number.
      marked: Where values are crossed.
    """

    label: str
    values: tuple[float | None, ...]
    first: int = 1
    marked: frozenset[int] = frozenset()


def bars(rows: Sequence[Bar], axis: str, *, points: bool = False) -> str:
    """Draws horizontal bars, the first on top.

    Args:
      rows: The bars, at least one.
      axis: Name of the axis, with its unit.
      points: Whether to draw values as points on an axis that need not begin at 0; for values that are close.
    """
    with _drawing(len(rows) * 0.3 + 0.6, labels=[one.label for one in rows], right=1.0) as (figure, axes):
        at = list(range(len(rows)))
        colours = [MARKED if one.marked else SERIES[0] for one in rows]
        if points:
            axes.scatter([one.value for one in rows], at, color=colours, zorder=3)
        else:
            drawn = axes.barh(at, [one.value for one in rows], height=0.62, color=colours, edgecolor=INK, linewidth=0)
            for bar, one in zip(drawn, rows, strict=True):
                bar.set_hatch("//" if one.marked else "")
        for position, one in enumerate(rows):
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [position, position], color=colours[position] if points else INK, lw=1.5)
        axes.set_yticks(at, [_short(one.label) for one in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(axis)
        axes.grid(axis="x")
        axes.margins(x=0.06)
        for position, one in enumerate(rows):
            axes.text(1.01, position, one.text, transform=axes.get_yaxis_transform(), va="center")
        return _svg(figure)


def diverging(labels: Sequence[str], left: Sequence[float], right: Sequence[float], names: tuple[str, str]) -> str:
    """Draws two counts for each label, one to the left of 0 and one to the right.

    Args:
      labels: Names of the rows, at least one.
      left: What goes to the left, no less than 0.
      right: What goes to the right, no less than 0.
      names: What the two are.
    """
    with _drawing(len(labels) * 0.26 + 0.95, labels=labels, top=_LEGEND) as (figure, axes):
        at = list(range(len(labels)))
        axes.barh(
            at, [-value for value in left], height=0.62, color=SERIES[1], label=names[0], hatch="//", edgecolor=INK
        )
        axes.barh(at, right, height=0.62, color=SERIES[0], label=names[1])
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_yticks(at, [_short(label) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        most = max(1.0, *left, *right)
        axes.set_xlim(-most * 1.1, most * 1.1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.set_xlabel("examples")
        axes.grid(axis="x")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure)


def matrix(
    rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[float]], names: tuple[str, str]
) -> str:
    """Draws counts as a matrix, the larger the darker; 0 is left out.

    Args:
      rows: Names of the rows, at least one.
      columns: Names of the columns, at least one.
      counts: By row and column.
      names: What the columns and the rows are.
    """
    longest = max(len(_short(name)) for name in columns)
    is_upright = longest <= _UPRIGHT_CHARACTERS
    top, right = 0.3 if is_upright else 0.2 + _CHARACTER * longest, 0.15
    left = 0.6 + _CHARACTER * max(len(_short(name)) for name in rows)
    size = (_BELOW + top + 0.3 * len(rows), left + right + 0.42 * len(columns))
    most = max(1.0, *(count for of_row in counts for count in of_row))
    with _drawing(*size, left=left, right=right, top=top) as (figure, axes):
        for row, of_row in enumerate(counts):
            for column, count in enumerate(of_row):
                if count:
                    # At most half as dark as the line of a chart, so that what is written on it is read.
                    axes.barh(row, 1, 0.94, left=column - 0.5, color=SERIES[0], alpha=0.1 + 0.4 * count / most)
                    axes.text(column, row, f"{count:,.0f}", ha="center", va="center")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
        axes.set_xticks(range(len(columns)), [_short(name) for name in columns], rotation=0 if is_upright else 90)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xlabel(names[0])
        axes.xaxis.set_label_position("bottom")
        axes.set_ylabel(names[1])
        return _svg(figure)


def lines(rows: Sequence[Line], axis: str, over: str = "epoch", *, from_zero: bool = False) -> str:
    """Draws lines over whole numbers; they differ by dashes and markers, too.

    Args:
      rows: The lines, from one to four, each with one value at least.
      axis: Name of the vertical axis.
      over: What the numbers count.
      from_zero: Whether the axis begins at 0; for values that are none below.
    """
    with _drawing(2.9, 4.6, top=2 * _LEGEND) as (figure, axes):
        for number, one in enumerate(rows):
            at = range(one.first, one.first + len(one.values))
            values = [math.nan if value is None else value for value in one.values]
            crossed = [value if x in one.marked else math.nan for x, value in zip(at, values, strict=True)]
            axes.plot(at, crossed, color=MARKED, linestyle="", marker="x", markersize=9)
            axes.plot(
                at,
                values,
                color=SERIES[number % len(SERIES)],
                linestyle=_DASHES[number % len(_DASHES)],
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=3.5,
                label=_short(one.label),
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ends = min(one.first for one in rows), max(one.first + len(one.values) - 1 for one in rows)
        margin = 0.05 * (ends[1] - ends[0]) or 0.5  # about one value the axis would have fractions
        axes.set_xlim(ends[0] - margin, ends[1] + margin)
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(over)
        axes.set_ylabel(_short(axis))
        axes.grid()
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure)


def histogram(counts: Sequence[float], low: int, high: int) -> str:
    """Draws counts of integers from `low` to `high` in parts of equal width, as shares of their sum."""
    with _drawing(1.7, 3.4) as (figure, axes):
        width, total = (high - low + 1) / len(counts), sum(counts) or 1
        edges = [low + position * width for position in range(len(counts) + 1)]
        axes.stairs([count / total for count in counts], edges, fill=True, color=SERIES[0])
        axes.set_xlim(low, high + 1)
        axes.set_xticks([low, 0, high])
        axes.set_xlabel("integer")
        axes.set_ylabel("share")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.grid(axis="y")
        return _svg(figure)


@contextlib.contextmanager
def _drawing(
    height: float,
    width: float = _WIDTH,
    *,
    labels: Sequence[str] = (),
    left: float = 0.0,
    right: float = 0.15,
    top: float = 0.1,
) -> Iterator[tuple[Figure, Axes]]:
    """Gives a figure and its axes, in the style of all of them.

    Margins are made for the text that will be there: to let Matplotlib find them takes longer than all the rest.

    Args:
      height: Of the figure, in inches.
      width: Of the figure, in inches.
      labels: What will be written to the left of the axes; without any, numbers and the name of the axis.
      left: Margin to the left, in inches; 0 for what the labels take.
      right: Margin to the right, in inches.
      top: Margin on top, in inches.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        left = left or 0.2 + _CHARACTER * max((len(_short(label)) for label in labels), default=6)
        edges = {"left": left / width, "right": 1 - right / width, "bottom": _BELOW / height, "top": 1 - top / height}
        figure.subplots_adjust(**edges)
        yield figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    written = io.StringIO()
    with warnings.catch_warnings():
        # Of letters that Matplotlib's font has not; the browser, which sets the text, has them.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(<g) id=\"[^\"]*\"|font-family: [^;]*; ", r"\1", svg)  # the page's font; groups need no name
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg


def _short(label: str) -> str:
    """A label of bounded length, its end kept: names of layers differ there."""
    return label if len(label) <= _LABEL_CHARACTERS else f"...{label[3 - _LABEL_CHARACTERS :]}"
