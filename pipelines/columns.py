"""Lines and aligned columns on a console, cut nowhere: a terminal wraps by itself, and a pipe gets all."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text


def print_line(console: Console, text: str, style: str = "") -> None:
    """Prints a text as it is, whatever it looks like to rich."""
    console.print(Text(text, style), soft_wrap=True)


def print_table(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
    """Prints aligned columns. Not a table of rich's, which would cut what is wider than the console."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads) - 1)]
    console.print()
    for row, style in zip((heads, *rows), ("bold", *styles), strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        console.print(Text("  ".join([*cells, row[-1]]), style), soft_wrap=True)
    console.print()
