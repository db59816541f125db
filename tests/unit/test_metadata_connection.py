"""URLs of ML Metadata: what they mean, and what is refused."""

from pathlib import Path

import pytest
from google.protobuf import json_format

from pipelines.metadata_connection import parse_connection


# The ports of MySQL and gRPC are 64-bit integers, which JSON has as texts.
def _configured(url: str) -> dict[str, object]:
    message = parse_connection(url).configuration()
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "runs/metadata.sqlite",
            {"sqlite": {"filename_uri": "runs/metadata.sqlite", "connection_mode": "READWRITE_OPENCREATE"}},
        ),
        (
            "postgresql://ann@db.example:5433/mlmd?sslmode=verify-full&sslrootcert=/ca.pem",
            {
                "postgresql": {
                    "host": "db.example",
                    "port": "5433",
                    "user": "ann",
                    "dbname": "mlmd",
                    "skip_db_creation": True,
                    "ssloption": {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
                }
            },
        ),
        (
            "mysql://ann%40work@[::1]/mlmd?ssl_ca=/ca.pem&ssl_verify_server_cert=true",
            {
                "mysql": {
                    "host": "::1",
                    "port": "3306",
                    "user": "ann@work",
                    "database": "mlmd",
                    "skip_db_creation": True,
                    "ssl_options": {"ca": "/ca.pem", "verify_server_cert": True},
                }
            },
        ),
        ("grpc://mlmd.example", {"host": "mlmd.example", "port": "8080", "client_timeout_sec": 300.0}),
    ],
)
def test_configuration_says_what_the_url_says(url: str, expected: dict[str, object]) -> None:
    assert _configured(url) == expected


def test_configuration_has_the_certificates_when_grpc_is_given_a_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificates")
    assert _configured(f"grpc://host:1?ssl_ca={tmp_path}/ca.pem") == {
        "host": "host",
        "port": "1",
        "client_timeout_sec": 300.0,
        "ssl_config": {"custom_ca": "certificates"},
    }


def test_configuration_makes_no_sqlite_file_when_it_is_not_to_create_one() -> None:
    config = parse_connection("file").configuration(create=False)
    assert config.sqlite.connection_mode == type(config.sqlite).READWRITE


@pytest.mark.parametrize("url", ["postgresql://ann@host/db", "mysql://ann@host/db"])
def test_configuration_has_no_password_when_a_file_has_it(url: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" sesame \n")
    connection = parse_connection(f"{url}?password_file={file}")
    assert connection.password() == " sesame "
    assert "sesame" not in str(connection.configuration()) + repr(connection)
    assert parse_connection(url).password() is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "oracle://ann@host/db",
            "unknown scheme 'oracle'; expected the path of a SQLite file, or a URL that begins with",
        ),
        ("sqlite:///file", "unknown scheme 'sqlite'"),
        ("postgresql://host/db", "no user (as //USER@HOST:PORT/DATABASE)"),
        ("postgresql://ann@host", "no database (as //USER@HOST:PORT/DATABASE)"),
        ("mysql:///db", "no host (as //USER@HOST:PORT/DATABASE); no user"),
        ("mysql://ann@localhost/db", "host localhost, which its client takes for a Unix socket (127.0.0.1)"),
        ("mysql://ann@host:0/db", "the port is no number from 1 to 65535"),
        ("mysql://ann@host/db?sslmode=x&b=1", "unknown option b, sslmode (some of ssl_ca, "),
        ("mysql://ann@host/db?ssl_verify_server_cert=1", "ssl_verify_server_cert is neither true nor false"),
        ("postgresql://ann@host/db%27%20user=%27bob", "quotes, backslashes or control characters in database"),
        ("postgresql://ann@host/db#x", "something follows # (nothing, or write # as %23)"),
        ("grpc://ann@host/db", "a user (none: a gRPC server has one store, and no users); a database (none"),
        ("grpc://host?password_file=x", "unknown option password_file (some of ssl_ca)"),
    ],
)
def test_parse_connection_says_all_that_is_wrong(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^metadata") as caught:
        parse_connection(url)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:sesame@host/db",
        "mysql://ann:sesame@host:x/db?y=1#z",
        "mysql://ann:ses/sesame@host/db",
        "mysql://ann:sesame#sesame@host/db",
        "postgresql://ann@host/db?password=sesame",
        "grpc://ann:sesame@host",
        "oracle://ann:sesame@host/db",
    ],
)
def test_parse_connection_refuses_a_password_and_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ValueError, match="metadata") as caught:
        parse_connection(url)
    assert "sesame" not in str(caught.value)


def test_password_says_which_file_cannot_be_read(tmp_path: Path) -> None:
    connection = parse_connection(f"mysql://ann@host/db?password_file={tmp_path}/none")
    with pytest.raises(ValueError, match="password_file .*/none: No such file or directory"):
        connection.password()
