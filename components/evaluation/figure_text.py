"""Figures as a verdict writes them: with four decimals, and more where these would contradict what it says."""

import math

DECIMALS = 4
_MOST_DECIMALS = 15


def decimals(value: float, limit: float) -> int:
    """Returns how many decimals tell a value from a limit; `DECIMALS` where they are the same but for rounding.

    >>> decimals(0.96, 0.97), decimals(0.96996, 0.97), decimals(0.98 - 0.97, 0.01)
    (4, 5, 4)
    """
    if not math.isfinite(value) or abs(value - limit) <= 1e-12 * max(1.0, abs(limit)):
        return DECIMALS
    known = (places for places in range(DECIMALS, _MOST_DECIMALS) if f"{value:.{places}f}" != f"{limit:.{places}f}")
    return next(known, _MOST_DECIMALS)


def told(value: float, limit: float) -> str:
    """Returns a value with decimals that tell it from a limit.

    >>> told(0.5, 0.97), told(0.96996, 0.97), told(3e-5, 2e-5)
    ('0.5000', '0.96996', '0.00003')
    """
    return f"{value:.{decimals(value, limit)}f}"
