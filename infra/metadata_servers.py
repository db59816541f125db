"""Starts PostgreSQL and MariaDB on loopback for ML Metadata, each on a free port, in a directory that is removed again.

    .venv/bin/python -m infra.metadata_servers     starts what is installed, prints URL and password, ends by Ctrl-C

`apt-get install postgresql mariadb-server` installs both. They run as an unprivileged user, even if root starts them,
and end with the process that started them.
"""

import argparse
import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_USER = "tfx"
_START_S = 120
# Debian's servers, which are not in everybody's PATH.
_DIRECTORIES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/sbin"), Path("/usr/bin")]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """How a server is made and talked to.

    Attributes:
      programs: What it needs.
      prepare: Makes its data in a directory, for a password.
      arguments: Its command line, for a directory and a port.
      stop_signal: Ends it without waiting for its clients.
      password_variable: Where its clients find the password.
      execute: The command line that executes a statement, for a port; the password is in the environment.
    """

    programs: tuple[str, ...]
    prepare: Callable[[Path, str], None]
    arguments: Callable[[Path, int], list[str]]
    stop_signal: signal.Signals
    password_variable: str
    execute: Callable[[int, str], list[str]]


@dataclasses.dataclass(kw_only=True, slots=True)
class Server:
    """A server that was started, with user "tfx", who may do anything.

    Attributes:
      kind: "postgresql" or "mysql".
      directory: Where all of it lies.
      port: Its port on 127.0.0.1, also after a restart.
      password: The user's password.
    """

    kind: str
    directory: Path
    port: int
    password: str
    _process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variable that gives clients the password."""
        return {_KINDS[self.kind].password_variable: self.password}

    def url(self, database: str) -> str:
        """Returns the URL of a database, for `--metadata`."""
        return f"{self.kind}://{_USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Creates a database and returns its URL."""
        command = _KINDS[self.kind].execute(self.port, f"CREATE DATABASE {name}")
        subprocess.run(command, env={**os.environ, **self.environment}, check=True, stdout=subprocess.DEVNULL)
        return self.url(name)

    def start(self) -> None:
        """Starts it and waits until it answers.

        Raises:
          RuntimeError: If it does not; says what it wrote.
        """
        log = self.directory / "log"
        command = [*_as_unprivileged(), "--pdeathsig", _KINDS[self.kind].stop_signal.name.removeprefix("SIG")]
        command += _KINDS[self.kind].arguments(self.directory, self.port)
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        deadline_s = time.monotonic() + _START_S
        probe = _KINDS[self.kind].execute(self.port, "SELECT 1")
        environment = {**os.environ, **self.environment}
        while subprocess.run(probe, env=environment, check=False, capture_output=True).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise RuntimeError(f"{self.kind} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends it, whoever is connected, and keeps its data."""
        if self._process is not None:
            self._process.send_signal(_KINDS[self.kind].stop_signal)
            self._process.wait(timeout=_START_S)
            self._process = None


def kinds() -> tuple[str, ...]:
    """Returns the kinds of servers that there are."""
    return tuple(_KINDS)


def missing(kind: str) -> str:
    """Returns which programs a server needs that are not installed; "" if it can be started."""
    return ", ".join(name for name in ("setpriv", *_KINDS[kind].programs) if _found(name) is None)


@contextlib.contextmanager
def running(kind: str) -> Iterator[Server]:
    """Starts a server, ends it and removes what it kept.

    Raises:
      RuntimeError: If it does not start.
    """
    # Not below another's temporary directory: the unprivileged user could not get there.
    with tempfile.TemporaryDirectory(prefix=f"tfx-{kind}-") as name:
        directory, password = Path(name), secrets.token_hex(8)
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody", "nogroup")
        _KINDS[kind].prepare(directory, password)
        server = Server(kind=kind, directory=directory, port=_free_port(), password=password)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _prepare_postgresql(directory: Path, password: str) -> None:
    _write(directory / "password", password)
    options = ["--username", _USER, "--auth", "scram-sha-256", "--pwfile", directory / "password", "--no-sync"]
    _run([_program("initdb"), "--pgdata", directory / "data", *options])


def _postgresql_arguments(directory: Path, port: int) -> list[str]:
    settings = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [_program("postgres"), "-D", str(directory / "data"), *options]


def _prepare_mysql(directory: Path, password: str) -> None:
    user = f"'{_USER}'@'127.0.0.1'"
    _write(
        directory / "init.sql",
        f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}';\nGRANT ALL ON *.* TO {user};\n",
    )
    data = f"--datadir={directory / 'data'}"
    _run([_program("mariadb-install-db"), "--no-defaults", data, "--skip-test-db", "--skip-name-resolve"])


def _mysql_arguments(directory: Path, port: int) -> list[str]:
    files = {"datadir": "data", "socket": "socket", "pid-file": "pid", "init-file": "init.sql"}
    options = [f"--{name}={directory / file}" for name, file in files.items()]
    network = ["--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve"]
    return [_program("mariadbd"), "--no-defaults", *options, *network]


_KINDS = {
    "postgresql": _Kind(
        programs=("initdb", "postgres", "psql"),
        prepare=_prepare_postgresql,
        arguments=_postgresql_arguments,
        stop_signal=signal.SIGINT,
        password_variable="PGPASSWORD",
        execute=lambda port, statement: [
            *(_program("psql"), "--no-psqlrc", f"postgresql://{_USER}@127.0.0.1:{port}/postgres"),
            *("--command", statement),
        ],
    ),
    "mysql": _Kind(
        programs=("mariadb-install-db", "mariadbd", "mariadb"),
        prepare=_prepare_mysql,
        arguments=_mysql_arguments,
        stop_signal=signal.SIGTERM,
        password_variable="MYSQL_PWD",
        execute=lambda port, statement: [
            *(_program("mariadb"), "--no-defaults", "--host=127.0.0.1", f"--port={port}", f"--user={_USER}"),
            *("--execute", statement),
        ],
    ),
}


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([*map(str, _DIRECTORIES), os.environ.get("PATH", "")]))


def _program(name: str) -> str:
    path = _found(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed; apt-get install postgresql mariadb-server")
    return path


def _as_unprivileged() -> list[str]:
    as_nobody = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    return [_program("setpriv"), *as_nobody]


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)
    if os.geteuid() == 0:
        shutil.chown(file, "nobody", "nogroup")


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run([*_as_unprivileged(), *command], check=False, capture_output=True, text=True, cwd="/")
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    """Starts what is installed, creates database "mlmd" in each, and waits for Ctrl-C."""
    parser = argparse.ArgumentParser(description="Starts PostgreSQL and MariaDB on loopback for ML Metadata.")
    parser.add_argument("kinds", nargs="*", default=list(_KINDS), metavar="KIND", help=", ".join(_KINDS))
    with contextlib.ExitStack() as servers:
        for kind in parser.parse_args().kinds:
            if lacking := missing(kind):
                print(f"{kind}: {lacking} not installed; apt-get install postgresql mariadb-server")
                continue
            server = servers.enter_context(running(kind))
            ((variable, password),) = server.environment.items()
            print(f"export {variable}={password}    # {server.create_database('mlmd')}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
