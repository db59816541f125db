"""Where ML Metadata is kept: a SQLite file, a database of PostgreSQL or MySQL, or a gRPC server.

It is told by a URL, or the path of a SQLite file:

    runs/digits/metadata.sqlite
    postgresql://USER@HOST:PORT/DATABASE
    mysql://USER@HOST:PORT/DATABASE?ssl_ca=ca.pem
    grpc://HOST:PORT?ssl_ca=ca.pem

A password is no part of it. The clients inside ML Metadata take theirs from the environment, so that it is in no
configuration, which TFX writes into its log; `?password_file=PATH` puts a file's text into the environment.
"""

import dataclasses
import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

METADATA_HELP = "a SQLite file, or postgresql://, mysql:// or grpc:// and where the server is"
"""The forms of a URL, for help texts."""

GRPC_CALL_LIMIT_S = 300.0
"""What a call to a gRPC server may take before it is an error; for one that hangs a client waits for ever."""

# ML Metadata writes them between quotes into a connection string.
_UNQUOTABLE = re.compile(r"['\"\\\x00-\x1f]")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """What there is to know of a scheme.

    Attributes:
      port: Where its servers listen unless they are told otherwise.
      password_variable: Environment variable from which its client takes the password; "" where there is none.
      tls: Fields of ML Metadata's TLS options by the names of ours.
    """

    port: int
    password_variable: str
    tls: Mapping[str, str]

    @property
    def options(self) -> tuple[str, ...]:
        """The names that may follow "?"."""
        return (*self.tls, *(("password_file",) if self.password_variable else ()))


_SSL = ("ca", "capath", "cert", "cipher", "key", "verify_server_cert")
_KINDS = {
    "postgresql": _Kind(
        port=5432,
        password_variable="PGPASSWORD",  # https://www.postgresql.org/docs/15/libpq-envars.html
        tls={name: name for name in ("sslmode", "sslcert", "sslkey", "sslrootcert")},
    ),
    "mysql": _Kind(
        port=3306,
        password_variable="MYSQL_PWD",  # https://dev.mysql.com/doc/refman/8.0/en/environment-variables.html
        tls={f"ssl_{name}": name for name in _SSL},
    ),
    # https://github.com/google/ml-metadata/blob/v1.16.0/ml_metadata/metadata_store/metadata_store_server_main.cc
    # No client key: its text would be part of the configuration.
    "grpc": _Kind(port=8080, password_variable="", tls={"ssl_ca": "custom_ca"}),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MetadataConnection:
    """A checked URL.

    Attributes:
      url: The URL, or the path of a SQLite file.
      scheme: "postgresql", "mysql" or "grpc"; "" for a SQLite file, which has nothing of what follows.
      host: Name or address of the server.
      port: Its port.
      user: Who connects; "" for gRPC.
      database: The database; "" for gRPC.
      options: Options by name.
    """

    url: str
    scheme: str = ""
    host: str = ""
    port: int = 0
    user: str = ""
    database: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> str:
        """The store itself, without who connects and how; of a SQLite file its absolute path."""
        if not self.scheme:
            return str(Path(self.url).resolve())
        return f"{self.scheme}://{self.host}:{self.port}/{self.database}"

    @property
    def password_variable(self) -> str:
        """The environment variable from which the client takes the password; "" where there is none."""
        return _KINDS[self.scheme].password_variable if self.scheme else ""

    def password(self) -> str | None:
        """Returns the text of the password file, without the end of its line; None without such an option.

        Raises:
          ValueError: If it cannot be read.
        """
        path = self.options.get("password_file")
        return None if path is None else _text(path, "password_file").rstrip("\r\n")

    def configuration(self, create: bool = True) -> Any:
        """Returns the ConnectionConfig that ML Metadata and TFX take, for gRPC the MetadataStoreClientConfig.

        Args:
          create: Whether a missing SQLite file is made. Of databases only the tables are made, never the database.

        Raises:
          ValueError: If the certificates for gRPC cannot be read.
        """
        return _CONFIGURATIONS[self.scheme](self, create)


def parse_connection(url: str) -> MetadataConnection:
    """Returns what a URL says, or the path of a SQLite file. Nothing is opened.

    Raises:
      ValueError: For all that is wrong with it; a password is not repeated.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        return MetadataConnection(url=url)
    kind = _KINDS.get(scheme)
    if kind is None:
        raise ValueError(
            f"metadata: unknown scheme {scheme!r}; expected the path of a SQLite file, or a URL that begins with"
            f" {', '.join(f'{name}://' for name in _KINDS)}"
        )
    parts = urllib.parse.urlsplit(url)
    options = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    port = _port(parts, kind)
    connection = MetadataConnection(
        url=url,
        scheme=scheme,
        host=parts.hostname or "",
        port=port or 0,
        user=urllib.parse.unquote(parts.username or ""),
        database=urllib.parse.unquote(parts.path.removeprefix("/")),
        options=options,
    )
    wrong = _problems(connection, kind)
    if port is None:
        wrong.append("the port is no number from 1 to 65535 (in a name, write : / ? # @ as %3A %2F %3F %23 %40)")
    if parts.password is not None:
        wrong.insert(0, f"a password is part of it ({_where_passwords_go(kind)})")
    if parts.fragment:
        wrong.append("something follows # (nothing, or write # as %23)")
    if wrong:
        raise ValueError(f"metadata {scheme}://: {'; '.join(wrong)}")
    return connection


def _port(parts: urllib.parse.SplitResult, kind: _Kind) -> int | None:
    try:
        port = parts.port
    except ValueError:  # its message has the text, which may be a part of a password
        return None
    return kind.port if port is None else port or None


def _problems(connection: MetadataConnection, kind: _Kind) -> list[str]:
    wrong = []
    if not connection.host:
        wrong.append("no host (as //USER@HOST:PORT/DATABASE)" if kind.password_variable else "no host (//HOST:PORT)")
    if connection.scheme == "mysql" and connection.host == "localhost":
        wrong.append("host localhost, which its client takes for a Unix socket (127.0.0.1)")
    for name in ("user", "database"):
        value = getattr(connection, name)
        if not value and kind.password_variable:
            wrong.append(f"no {name} (as //USER@HOST:PORT/DATABASE)")
        if value and not kind.password_variable:
            wrong.append(f"a {name} (none: a gRPC server has one store, and no users)")
    if unknown := sorted(set(connection.options) - set(kind.options)):
        wrong.append(f"unknown option {', '.join(unknown)} (some of {', '.join(kind.options)})")
    texts = {"host": connection.host, "user": connection.user, "database": connection.database, **connection.options}
    if unquotable := [name for name, text in texts.items() if _UNQUOTABLE.search(text)]:
        wrong.append(f"quotes, backslashes or control characters in {', '.join(unquotable)}")
    if connection.options.get("ssl_verify_server_cert", "true") not in ("true", "false"):
        wrong.append("ssl_verify_server_cert is neither true nor false")
    return wrong


def _where_passwords_go(kind: _Kind) -> str:
    if not kind.password_variable:
        return "a gRPC server takes none"
    return f"set {kind.password_variable}, or add ?password_file=PATH"


def _sqlite(connection: MetadataConnection, create: bool) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    modes = mlmd.SqliteMetadataSourceConfig
    mode = modes.READWRITE_OPENCREATE if create else modes.READWRITE
    return mlmd.ConnectionConfig(sqlite=modes(filename_uri=connection.url, connection_mode=mode))


def _postgresql(connection: MetadataConnection, create: bool) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    database = mlmd.PostgreSQLDatabaseConfig(
        host=connection.host,
        port=str(connection.port),
        user=connection.user,
        dbname=connection.database,
        skip_db_creation=True,
    )
    _set_tls(connection, database.ssloption)
    return mlmd.ConnectionConfig(postgresql=database)


def _mysql(connection: MetadataConnection, create: bool) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    database = mlmd.MySQLDatabaseConfig(
        host=connection.host,
        port=connection.port,
        user=connection.user,
        database=connection.database,
        skip_db_creation=True,
    )
    _set_tls(connection, database.ssl_options)
    return mlmd.ConnectionConfig(mysql=database)


def _set_tls(connection: MetadataConnection, message: Any) -> None:
    for name, field in _KINDS[connection.scheme].tls.items():
        if name in connection.options:
            text = connection.options[name]
            setattr(message, field, text == "true" if field == "verify_server_cert" else text)


def _grpc(connection: MetadataConnection, create: bool) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    client = mlmd.MetadataStoreClientConfig(
        host=connection.host, port=connection.port, client_timeout_sec=GRPC_CALL_LIMIT_S
    )
    if "ssl_ca" in connection.options:
        client.ssl_config.custom_ca = _text(connection.options["ssl_ca"], "ssl_ca")
    return client


_CONFIGURATIONS: Mapping[str, Callable[[MetadataConnection, bool], Any]] = {
    "": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
    "grpc": _grpc,
}


def _text(path: str, option: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"metadata: {option} {path}: {reason}; expected a file that can be read") from error
