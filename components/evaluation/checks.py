"""Reasons of checks of files, which are no gates but are told as those are."""

import math

from components.evaluation.verdict import Code, Reason, holding


def holds(check: str, text: str, got: float | None = None, limit: float | None = None) -> Reason:
    """Returns the reason of a check that is kept."""
    return Reason(code="holds", gate=check, got=got, limit=limit, text=holding(f"{check}: {text}"))


def fails(
    check: str, code: Code, text: str, got: float | str | None = None, limit: float | str | None = None
) -> Reason:
    """Returns the reason of a check that is not kept."""
    finite = None if got == math.inf else got
    return Reason(code=code, gate=check, got=finite, limit=limit, text=f"fails: {check}: {text}")


def within(check: str, got: int, limit: int | None, note: str = "") -> Reason:
    """Returns the reason of a number of bytes, which may have a limit.

    >>> within("file", 300, 200).text
    'fails: file: 300 bytes, more than 200'
    """
    if limit is None:
        return holds(check, f"{got:,} bytes{note}", float(got))
    if got <= limit:
        return holds(check, f"{got:,} of {limit:,} bytes{note}", float(got), float(limit))
    return fails(check, "budget", f"{got:,} bytes, more than {limit:,}{note}", float(got), float(limit))
