"""Tells a webhook what was decided."""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from components.retraining.ledger import Entry

_TRIES, _FIRST_WAIT_S, _TIMEOUT_S = 3, 1.0, 10.0


def require_webhook(url: str) -> None:
    """Raises ValueError if that is no URL of a webhook; quotes nothing of it, as such URLs are secrets."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the alert URL: expected http(s)://HOST/PATH; correct --alert-url or TFX_QAT_ALERT_URL")


def message(pipeline: str, entry: Entry, held: str) -> dict[str, Any]:
    """Returns what a webhook is told of a decision.

    `id` is the same where the same decision is told twice, after a scheduler died in between.
    """
    return {
        "id": f"{pipeline}/{entry.span}/{entry.decision}",
        "pipeline": pipeline,
        "span": entry.span,
        "state": entry.state,
        "reason": entry.reason,
        "run": entry.attempt,
        "at": entry.at,
        "held": held,
        "report": entry.report,
    }


def post(url: str, body: dict[str, Any], sleep: Callable[[float], None] = time.sleep) -> None:
    """Posts JSON; tries again, 1 s and 2 s later, what may be better then: no answer, 408, 429 and 5xx.

    Raises:
      OSError: If it was not taken; the text has nothing of the URL but the host.
    """
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    why = ""
    for number in range(_TRIES):
        if number:
            sleep(_FIRST_WAIT_S * 2 ** (number - 1))
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}"
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                break
        except (OSError, http.client.HTTPException) as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
    raise OSError(f"{urllib.parse.urlsplit(url).hostname} did not take the alert: {why}")
