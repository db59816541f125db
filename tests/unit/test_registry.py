"""Whether an image exists, asked of a registry on loopback by its own protocol."""

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from pipelines.registry import image_exists

_TOKEN = "a-token"


class _Registry(http.server.BaseHTTPRequestHandler):
    """public/...: anyone may ask; token/...: with a token that anyone gets; private/...: nobody without a login."""

    def do_HEAD(self) -> None:
        kind, name = self.path.removeprefix("/v2/").split("/manifests/")[0].split("/")
        if kind == "token" and self.headers["Authorization"] != f"Bearer {_TOKEN}":
            self.send_response(401)
            realm = f"http://{self.headers['Host']}/token"
            self.send_header(
                "WWW-Authenticate", f'Bearer realm="{realm}",service="here",scope="repository:{name}:pull"'
            )
        elif kind == "private":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
        else:
            accepted = "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
            self.send_response(200 if accepted and self.path.endswith("tfx-qat/manifests/1.0") else 404)
        self.end_headers()

    def do_GET(self) -> None:
        assert self.path.startswith("/token?service=here&scope=repository%3A")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"token": "%s"}' % _TOKEN.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("image", "exists"),
    [("public/tfx-qat:1.0", True), ("public/tfx-qat:2.0", False), ("token/tfx-qat:1.0", True), ("token/no:1.0", False)],
)
def test_image_exists_asks_the_registry(registry: str, image: str, exists: bool) -> None:
    assert image_exists(f"{registry}/{image}") is exists


def test_image_exists_says_so_when_the_registry_wants_a_login(registry: str) -> None:
    with pytest.raises(PermissionError, match=f"{registry} does not say without credentials"):
        image_exists(f"{registry}/private/tfx-qat:1.0")


def test_image_exists_raises_when_something_else_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail is here\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="answers nothing that a registry would"):
            image_exists(f"127.0.0.1:{server.getsockname()[1]}/public/tfx-qat:1.0")
        thread.join()


def test_image_exists_raises_when_nothing_answers() -> None:
    with pytest.raises(OSError, match="refused"):
        image_exists("127.0.0.1:9/public/tfx-qat:1.0")
