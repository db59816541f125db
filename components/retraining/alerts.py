"""Tells a webhook what was decided."""

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from components.retraining.ledger import Entry

_TRIES, _FIRST_WAIT_S, _TIMEOUT_S = 3, 1.0, 10.0
# Printable ASCII: blanks and control characters make http.client quote all of a URL, urllib drops some in silence.
_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)
# Of where a redirect leads, what is no secret.
_HOST = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]+)?(?=[/?#]|$)", re.IGNORECASE)


def require_webhook(url: str) -> None:
    """Raises ValueError if that is no URL of a webhook; quotes nothing of it, as such URLs are secrets."""
    if not _is_webhook(url):
        raise ValueError(
            "the alert URL: expected http(s)://HOST/PATH without a user, blanks and control characters; correct"
            " --alert-url or TFX_QAT_ALERT_URL"
        )


def _is_webhook(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return bool(_URL.fullmatch(url) and parts.hostname and parts.username is None and parts.port != 0)
    except ValueError:  # of a port, or of an address in brackets
        return False


def decision_id(pipeline: str, entry: Entry) -> str:
    """Returns what tells a decision from all others, wherever it is told of."""
    return f"{pipeline}/{entry.span}/{entry.decision}"


def message(pipeline: str, entry: Entry, held: str) -> dict[str, Any]:
    """Returns what a webhook is told of a decision.

    `id` is the same where the same decision is told twice, after a scheduler died in between.
    """
    return {
        "id": decision_id(pipeline, entry),
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
    opener = _opener()
    why = ""
    for number in range(_TRIES):
        if number:
            sleep(_FIRST_WAIT_S * 2 ** (number - 1))
        try:
            with opener.open(request, timeout=_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}{_redirect(url, error)}"
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                break
        except OSError as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
        except http.client.HTTPException as error:  # whose text may quote the URL
            why = type(error).__name__
    raise OSError(f"{urllib.parse.urlsplit(url).hostname} did not take the alert: {why}")


def _opener() -> urllib.request.OpenerDirector:
    """Handlers as urllib has them, but none of redirects: it follows most with a GET, which posts nothing."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _redirect(url: str, error: urllib.error.HTTPError) -> str:
    """Says where an answer points to, without its path, which may be a secret; empty if it does not point anywhere."""
    location = error.headers.get("Location")
    if not 300 <= error.code < 400 or not location:
        return ""
    try:
        host = _HOST.match(urllib.parse.urljoin(url, location))
    except ValueError:  # of an address in brackets
        host = None
    return f", a redirect to {host[0] if host else 'elsewhere'}: a POST follows none; make the alert URL where it leads"
