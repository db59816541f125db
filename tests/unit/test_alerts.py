import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from components.retraining.alerts import message, post
from components.retraining.ledger import Entry


class _Server(http.server.ThreadingHTTPServer):
    """Answers with the statuses it was given, one after the other, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.bodies: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a-secret"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.statuses.pop(0))
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
