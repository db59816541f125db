"""Writes the table of supported layers into README.md from what its tests measured: `python -m infra.support_table`."""

import json
from pathlib import Path
from typing import Any

import click

_REPOSITORY = Path(__file__).parent.parent
_GOLDEN = _REPOSITORY / "tests" / "goldens" / "layer_support.json"
_README = _REPOSITORY / "README.md"
_BEGIN, _END = "<!-- support table: begin -->", "<!-- support table: end -->"
_HEAD = ("layers", "Keras", "models", "ranges", "int8 against QAT, LSB")

# By row, Keras and case: the verdict, and the largest difference in steps of the integers, None for more than 64.
Golden = dict[str, dict[str, dict[str, dict[str, Any]]]]


@click.command()
def main() -> None:
    """Writes the table of supported layers into README.md from tests/goldens/layer_support.json."""
    text = _README.read_text()
    _README.write_text(with_table(text, json.loads(_GOLDEN.read_text())))
    click.echo(f"{_README}: {'up to date' if _README.read_text() == text else 'written'}")


def with_table(text: str, golden: Golden) -> str:
    """Returns a text with the table between its two markers.

    Args:
      text: Markdown.
      golden: What was measured.

    Raises:
      ValueError: If the text does not have each marker once, in order.

    >>> print(with_table(f"{_BEGIN}{_END}", {"Dense": {"Keras 3": {"Dense": {"verdict": "trained", "max_lsb": 1}}}}))
    <!-- support table: begin -->
    | layers | Keras | models | ranges | int8 against QAT, LSB |
    |---|---|---|---|---|
    | Dense | 3 | 1 | trained | ≤ 1 |
    <!-- support table: end -->
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end) or _BEGIN in after or _END in after:
        raise ValueError(f"README.md: expected {_BEGIN} and behind it {_END}, each once; add them where the table goes")
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(name, golden[name]) for name in sorted(golden, key=_order(golden)))]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join([before + begin, *lines, end + after])


def _order(golden: Golden) -> Any:
    """Trained ones first, refused ones last, each by name."""

    def key(name: str) -> tuple[int, str]:
        verdicts = {_kind(entry) for cases in golden[name].values() for entry in cases.values()}
        return 2 * ("refused" in verdicts) + ("calibrated" in verdicts), name.lower()

    return key


def _row(name: str, versions: dict[str, dict[str, dict[str, Any]]]) -> tuple[str, ...]:
    cases = [(case, entry) for version in versions.values() for case, entry in version.items()]
    entries = [entry for _, entry in cases]
    return (
        name.replace("|", "\\|"),
        ", ".join(sorted(version.removeprefix("Keras ") for version in versions)),
        str(len(entries)),
        _verdicts(cases),
        _agreement(entries),
    )


def _kind(entry: dict[str, Any]) -> str:
    return str(entry["verdict"]).split(":")[0]


def _verdicts(cases: list[tuple[str, dict[str, Any]]]) -> str:
    """The one verdict of all cases, or each with its cases."""
    found: dict[str, list[str]] = {}
    for case, entry in cases:
        found.setdefault(str(entry["verdict"]), []).append(case)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{verdict} ({', '.join(dict.fromkeys(names))})" for verdict, names in sorted(found.items()))


def _agreement(entries: list[dict[str, Any]]) -> str:
    bounds = [entry["max_lsb"] for entry in entries if _kind(entry) != "refused"]
    if not bounds:
        return "-"
    return "> 64" if None in bounds else f"≤ {max(bounds)}" if max(bounds) else "equal"


if __name__ == "__main__":
    main()
