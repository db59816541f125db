"""Which models were pushed and rolled back from: no baseline for those that come after them."""

import logging

from components.delivery import history
from components.push_destination import PushDestination

_LOGGER = logging.getLogger(__name__)


def withdrawn_models(destination: PushDestination, but_by_span: int | None = None) -> set[str]:
    """Returns the `content_sha256` of models whose versions were rolled back from, but for the one that is in use.

    That is the same in each run that makes a model, and before and after it is compiled.

    Args:
      destination: Where they were pushed.
      but_by_span: A span whose own rollbacks are passed over: a run on it that is repeated finds what the first found.
    """
    moves = destination.history()
    if but_by_span is not None:
        moves = [move for move in moves if not _is_by_span(destination, move, but_by_span)]
    withdrawn = history.withdrawn(moves)
    # A model may have several versions, as one that was compiled again, of which one was rolled back from.
    return _models(destination, withdrawn) - _models(destination, {moves[-1].version}) if withdrawn else set()


def _is_by_span(destination: PushDestination, move: history.Entry, span: int) -> bool:
    return move.action == history.ROLLBACK and destination.record(move).get("span") == span


def _models(destination: PushDestination, versions: set[str]) -> set[str]:
    """The `content_sha256` of versions that are there and know it."""
    found = set()
    for version in versions:
        try:
            manifest = destination.manifest(version)
        except ValueError as error:  # nothing is held against a damaged version that nobody uses
            _LOGGER.warning("%s", error)
            continue
        if manifest is not None and (sha256 := manifest.facts.get("content_sha256")):
            found.add(str(sha256))
    return found
