"""Tests of opening ML Metadata where the server takes connections and hangs."""

import socket
from collections.abc import Iterator

import pytest

from pipelines import metadata_opening


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a server whose connections nobody ever accepts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("scheme", "said"), [("mysql", "it takes connections, but said nothing"), ("postgresql", "timeout expired")]
)
def test_open_store_raises_when_a_server_takes_the_connection_and_hangs(
    scheme: str, said: str, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_opening, "_SILENCE_LIMIT_S", 2)  # PostgreSQL's client takes 1 for 2
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "")  # so that it is taken away afterwards
    monkeypatch.delenv("PGCONNECT_TIMEOUT")
    with pytest.raises(ValueError, match=said):
        metadata_opening.open_store(f"{scheme}://ann@127.0.0.1:{silent_port}/metadata")
