import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from components.retraining.alerts import message, post, require_webhook
from components.retraining.ledger import Entry


class _Server(http.server.ThreadingHTTPServer):
    """Answers with the statuses it was given, one after the other, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.location = ""
        self.bodies: list[Any] = []
        self.gets = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a-secret"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.statuses.pop(0))
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.gets += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_post_sends_the_verdict_again_when_the_server_is_busy(server: _Server) -> None:
    server.statuses, waits = [503, 429, 200], []
    entry = Entry(
        span=5, state="refused", reason="a gate", decision=3, attempt=2, report={"verdict": {"blessed": False}}
    )
    post(server.url, message("digits", entry, ""), sleep=waits.append)
    assert waits == [1.0, 2.0]
    assert len(server.bodies) == 3
    assert server.bodies[2]["id"] == "digits/5/3"
    assert server.bodies[2]["report"] == {"verdict": {"blessed": False}}


@pytest.mark.parametrize(("statuses", "tries"), [([404], 1), ([500, 502, 503], 3)])
def test_post_raises_without_the_url_when_nobody_takes_it(server: _Server, statuses: list[int], tries: int) -> None:
    server.statuses = list(statuses)
    with pytest.raises(OSError, match=f"127.0.0.1 did not take the alert: HTTP {statuses[-1]}") as caught:
        post(server.url, {}, sleep=lambda _: None)
    assert len(server.bodies) == tries
    assert "secret" not in str(caught.value)


def test_post_raises_when_nobody_answers() -> None:
    with pytest.raises(OSError, match="did not take the alert: .*refused"):
        post("http://127.0.0.1:1/a-secret", {}, sleep=lambda _: None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_post_raises_when_it_is_redirected_as_nothing_would_be_posted(server: _Server, status: int) -> None:
    server.statuses, server.location = [status], "/a-secret/moved"
    with pytest.raises(OSError, match=f"HTTP {status}, a redirect to {server.url[:-9]}: a POST follows") as caught:
        post(server.url, {}, sleep=lambda _: None)
    assert (len(server.bodies), server.gets) == (1, 0)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", ["https://ann:secret@host/", "http://[secret", "gopher://secret/"])
def test_post_quotes_no_secret_of_where_a_redirect_leads(server: _Server, location: str) -> None:
    server.statuses, server.location = [308], location
    with pytest.raises(OSError, match="HTTP 308, a redirect to elsewhere: ") as caught:
        post(server.url, {}, sleep=lambda _: None)
    assert "secret" not in str(caught.value)


def test_post_raises_without_the_url_when_http_cannot_say_it() -> None:
    with pytest.raises(OSError, match="hooks.example did not take the alert: InvalidURL$"):
        post("https://hooks.example/a SECRET ", {}, sleep=lambda _: None)


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:secret@hooks.example/T0",
        "https://hooks.example:8secret/T0",
        "https://hooks.example:0/secret",
        "https://hooks.example/secret with blanks",
        "https://hooks.example/secret\n",
        "https://hooks.example/secret\x7f",
        "https://hooks.example/s\u00e9cret",
        "https://[secret/T0",
        "https:///secret",
        "secret",
    ],
)
def test_require_webhook_raises_and_quotes_nothing_when_it_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="the alert URL: expected ") as caught:
        require_webhook(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    "url", ["https://hooks.example/services/T0/B0?a=b&c=%20", "HTTP://127.0.0.1:8080", "http://[::1]:1/x"]
)
def test_require_webhook_takes_urls(url: str) -> None:
    require_webhook(url)
