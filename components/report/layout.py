"""What a section of the page consists of."""

import dataclasses
from collections.abc import Sequence

from components.report.facts import Cell


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a table; its first cell is its header.

    Attributes:
      cells: As many as the table has columns.
      mark: What stands out in it, such as "worst", in a word or two; "" if nothing does.
    """

    cells: tuple[Cell, ...]
    mark: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table.

    Attributes:
      caption: What it shows, with units.
      head: Names of the columns.
      rows: Its rows.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A picture with what it shows in words and in numbers.

    Attributes:
      svg: The picture, an SVG element without a title.
      alt: What it shows, in a sentence or two.
      table: All numbers that are drawn.
      open: Whether the table shows at once.
    """

    svg: str
    alt: str
    table: Table
    open: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """Things in a row, such as the ops of a graph.

    Attributes:
      caption: What it shows.
      ops: Of each its name, a mark as in `Row` if it is not as it should be, and a sentence on it.
    """

    caption: str
    ops: tuple[tuple[Cell, str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A thing and what it was made of.

    Attributes:
      name: What it is, in a word or two.
      facts: What is known of it, each with its name.
      children: What it was made of.
    """

    name: str
    facts: tuple[tuple[str, Cell], ...]
    children: tuple["Branch", ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A section of the page.

    Attributes:
      id: Its anchor.
      title: Its heading.
      notes: Sentences before what it shows.
      missing: Sentences on what there is not.
      strip: Things in a row, such as ops; None for none.
      tree: What came of what; None for none.
      figures: Its pictures.
      tables: Its tables.
    """

    id: str
    title: str
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    strip: Strip | None = None
    tree: Branch | None = None
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def row(*cells: Cell | str, mark: str = "") -> Row:
    """Returns a row; texts are words of the page's own."""
    return Row(cells=tuple(Cell(text=cell) if isinstance(cell, str) else cell for cell in cells), mark=mark)


def table(caption: str, head: Sequence[str], rows: Sequence[Row]) -> Table:
    """Returns a table.

    Raises:
      ValueError: If a row has another number of cells than the head.
    """
    if wrong := [one for one in rows if len(one.cells) != len(head)]:
        raise ValueError(f"table {caption!r}: got a row of {len(wrong[0].cells)} cells, expected {len(head)}")
    return Table(caption=caption, head=tuple(head), rows=tuple(rows))
