"""Opens ML Metadata, wherever it is kept, and says what is wrong where it cannot be opened."""

import os
import random
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store

from pipelines.metadata_connection import MetadataConnection, parse_connection
from pipelines.progress import stderr_to

# https://www.sqlite.org/fileformat2.html#magic_header_string
_SQLITE_HEADER = b"SQLite format 3\0"
# What clients meet that open an empty database at the same time; it is over when one of them has made the tables.
_BEING_MADE = re.compile(r"concurrent connection|duplicate key|already exists|database is locked")
_LIMIT_S = 60.0
# How long a server may say nothing that has taken the connection; that of gRPC's clients.
_SILENCE_LIMIT_S = 20
# ML Metadata raises nothing of a reason of PostgreSQL's, but writes it to standard error.
_WRITTEN_REASON = re.compile(r"PostgreSQL error: (.+)")


def open_store(url: str, create: bool = False) -> Any:
    """Returns ML Metadata's own MetadataStore for a URL or the path of a SQLite file, with its tables made.

    Puts the text of a `password_file` into the environment of this process, where TFX's connections find it too.

    Args:
      url: As `parse_connection` takes it.
      create: Whether a missing SQLite file is made.

    Raises:
      ValueError: If there is no store, or it cannot be opened.
    """
    connection = parse_connection(url)
    if not connection.scheme:
        _require_sqlite(Path(url), create)
    _limit_silence(connection)
    password = connection.password()
    if password is not None:
        os.environ[connection.password_variable] = password
    config = connection.configuration(create)
    deadline_s = time.monotonic() + _LIMIT_S
    while True:
        written: list[str] = []
        try:
            with _captured_stderr(written):
                store = metadata_store.MetadataStore(config)
                store.get_artifacts_by_id([0])  # a gRPC client connects with its first call
            return store
        except (RuntimeError, errors.StatusError) as error:
            if not _BEING_MADE.search(str(error)) or time.monotonic() > deadline_s:
                raise ValueError(_explanation(connection, str(error), written[0])) from error
        time.sleep(random.uniform(0.1, 0.5))


def _limit_silence(connection: MetadataConnection) -> None:
    """Lets a database's client not wait for ever for a server that takes connections and hangs.

    PostgreSQL's takes a limit from the environment; MySQL's has none, but its servers speak first.
    """
    if connection.scheme == "postgresql":
        os.environ.setdefault("PGCONNECT_TIMEOUT", str(_SILENCE_LIMIT_S))
    elif connection.scheme == "mysql":
        try:
            server = socket.create_connection((connection.host, connection.port), timeout=_SILENCE_LIMIT_S)
        except OSError:
            return  # the client says why
        with server:
            try:
                server.recv(1)
            except TimeoutError as error:
                said = f"it takes connections, but said nothing for {_SILENCE_LIMIT_S} s; expected a MySQL server"
                raise ValueError(f"ML Metadata at {connection.url} cannot be opened: {said}") from error


def is_there(url: str) -> bool:
    """Returns whether there is a store to open, which of a server only the server knows."""
    return "://" in url or Path(url).is_file()


def _require_sqlite(path: Path, create: bool) -> None:
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(len(_SQLITE_HEADER))
            if head != _SQLITE_HEADER and not (create and not head):  # an empty file is an empty database
                raise ValueError(f"{path} is no SQLite file; pass --metadata with the one below a run's root")
    elif not create:
        raise ValueError(f"no ML Metadata at {path}; run a pipeline first, or pass --metadata")
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"metadata {path} cannot be written: {error.strerror}; pass another path") from error


@contextmanager
def _captured_stderr(written: list[str]) -> Iterator[None]:
    """Appends what is written to standard error, below Python, in the meantime."""
    with tempfile.TemporaryFile() as file:
        try:
            with stderr_to(file.fileno()):
                yield
        finally:
            file.seek(0)
            written.append(file.read().decode(errors="replace"))


def _explanation(connection: MetadataConnection, raised: str, written: str) -> str:
    head = f"ML Metadata at {connection.url} cannot be opened: "
    if not connection.scheme:
        return f"{head}{raised}; expected a SQLite file of ML Metadata, in a directory where one can write"
    try:
        socket.create_connection((connection.host, connection.port), timeout=10).close()
    except OSError as error:
        return f"{head}{error.strerror or error}; is the server running at {connection.host}, port {connection.port}?"
    if not connection.password_variable:
        return f"{head}{raised}; expected ML Metadata's gRPC server"
    reason = _WRITTEN_REASON.search(written)
    # MySQL's reasons are lost where the connection fails: "mysql_real_connect failed: errno: , error: ".
    said = reason.group(1) if reason else raised if "errno: ," not in raised else "refused, and its client says not why"
    return (
        f"{head}{said.strip()}; check the user, the password (in {connection.password_variable}, or"
        " ?password_file=PATH), that the database was created, and the TLS options"
    )
