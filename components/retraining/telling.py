"""Tells others what was decided: each decision at least once, though who is to be told is out of reach meanwhile."""

import collections
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from components.retraining.ledger import Entry, Ledger
from components.retraining.policy import RetrainingPolicy

_LOGGER = logging.getLogger(__name__)

Tell = Callable[[Sequence[Entry], str], Iterable[Entry]]
"""Tells somebody of decisions, and why nothing more is run, "" if more is; yields each as soon as it is told."""


class Telling:
    """Who is told of decisions, and whom to leave in peace for a while.

    Where telling fails, those decisions stay in the ledger as untold, and are told later: with the waits of failed runs
    in between while this process lives, and by each new one at once. So an outage loses nothing and delays no run by
    more than one try. A decision that failed twice is then the last, lest one that nobody takes keeps the others back.
    """

    def __init__(self, tell: Mapping[str, Tell], policy: RetrainingPolicy) -> None:
        """Remembers whom to tell, by a name, and the policy, which has the waits."""
        self._tell = tell
        self._policy = policy
        self._failures: collections.Counter[str] = collections.Counter()  # in a row
        self._not_before_s: dict[str, float] = {}
        self._refused: collections.Counter[tuple[str, int]] = collections.Counter()

    @property
    def names(self) -> tuple[str, ...]:
        """Whom a new decision is to be told."""
        return tuple(self._tell)

    def tell(self, ledger: Ledger, held: str, now_s: float) -> bool:
        """Tells what is untold to each whose time it is; returns whether anybody was told anything.

        Args:
          ledger: Where it stands, and where it is noted as told.
          held: Why nothing more is run; "" if more is.
          now_s: Seconds since the epoch.
        """
        told = [self._tell_one(name, ledger, held, now_s) for name in self._tell]
        return any(told)

    def _tell_one(self, name: str, ledger: Ledger, held: str, now_s: float) -> bool:
        untold = ledger.untold(name) if now_s >= self._not_before_s.get(name, 0.0) else []
        if not untold:
            return False
        untold.sort(key=lambda entry: max(0, self._refused[name, entry.decision] - 1))
        left = {entry.decision: entry for entry in untold}
        why = "no answer"
        try:
            for entry in self._tell[name](untold, held):
                del left[entry.decision]
                ledger.told(entry, name)
        except Exception as error:  # whatever it is, it is no reason to run nothing more
            why = str(error) or type(error).__name__
        is_any_told = len(left) < len(untold)
        self._failures[name] = 1 if is_any_told else self._failures[name] + 1
        if left:
            wait_s = self._policy.wait_s(self._failures[name])
            self._not_before_s[name] = now_s + wait_s
            first = next(iter(left.values()))
            self._refused[name, first.decision] += 1
            spans = f"{first.span}" + (f" and {len(left) - 1:,} more" if len(left) > 1 else "")
            _LOGGER.warning("span %s: %s failed, is tried again in %.0f s: %s", spans, name, wait_s, why)
        else:
            self._failures[name] = 0
        return is_any_told
