"""Google Cloud Storage on loopback, for the clients that programs really use.

TensorFlow's file system, Beam's and google-cloud-storage read and write gs:// here, unchanged and from any process, by
environment variables alone. gcp-storage-emulator keeps the objects; what it lacks of the service and these clients can
notice is mended below, each with a link to what is documented. Requests never fail by chance here, anyone may do
anything, and answers hold all fields, whichever `fields` are asked for.

Beam and google-cloud-storage find it by STORAGE_EMULATOR_HOST. TensorFlow's hosts are compiled in, but libcurl takes a
proxy and certificate authorities from the environment: so the server is an HTTPS proxy as well, which answers for these
hosts itself, with a certificate of its own, and refuses all others. Clients get their tokens as on Google's machines,
from the metadata server, which it is too.
https://github.com/tensorflow/tensorflow/blob/v2.16.2/third_party/xla/third_party/tsl/tsl/platform/cloud/gcs_file_system.cc#L75
"""

import contextlib
import io
import json
import re
import ssl
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.storage import Storage

HOSTS = ("www.googleapis.com", "storage.googleapis.com")
ACCESS_TOKEN = "ya29.token-of-the-tests"

# By the last part of their path. https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys
_METADATA: dict[str, Any] = {
    "": {"email": "tests", "aliases": ["default"], "scopes": ["https://www.googleapis.com/auth/cloud-platform"]},
    "token": {"access_token": ACCESS_TOKEN, "expires_in": 3600, "token_type": "Bearer"},
    "project-id": "tests",
    "universe-domain": "googleapis.com",
}


@dataclass(frozen=True, kw_only=True)
class ObjectStore:
    """A running object store.

    Attributes:
      environment: What a process needs in its environment, from its start, to find the store.
    """

    environment: dict[str, str]
    _storage: Storage

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket."""
        buckets.create_bucket(name, self._storage)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Uploads an object."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        url = f"{self.environment['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{bucket}/o?{query}"
        urllib.request.urlopen(
            urllib.request.Request(url, content, {"Content-Type": "application/octet-stream"})
        ).close()

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Returns the content of a bucket's objects by name, in their order."""
        return {name: self._storage.get_file(bucket, name) for name in sorted(self._storage.objects.get(bucket, {}))}


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Runs an object store without buckets, in threads of this process, until the block ends."""
    authority = trustme.CA()
    with tempfile.TemporaryDirectory(prefix="object-store-") as directory, _Server() as server:
        authority.issue_cert(*HOSTS).configure_cert(server.tls)
        certificate = Path(directory, "authority.pem")
        authority.cert_pem.write_to_path(str(certificate))
        address = f"127.0.0.1:{server.server_port}"
        environment = {
            "STORAGE_EMULATOR_HOST": f"http://{address}",
            "CURL_CA_BUNDLE": str(certificate),
            **dict.fromkeys(("https_proxy", "HTTPS_PROXY"), f"http://{address}"),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
            # Tokens come from the metadata server, not from what this machine's user has.
            **dict.fromkeys(("GCE_METADATA_HOST", "GCE_METADATA_IP"), address),
            "NO_GCE_CHECK": "false",
            "GOOGLE_APPLICATION_CREDENTIALS": "",
            "CLOUDSDK_CONFIG": directory,
            "GOOGLE_CLOUD_PROJECT": _METADATA["project-id"],
            # What fails here would fail again: ten attempts are minutes of silence.
            "GCS_RETRY_CONFIG_MAX_RETRIES": "0",
        }
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield ObjectStore(environment=environment, _storage=server.storage)
        finally:
            server.shutdown()
            serving.join()


class _Objects(Storage):
    """Content in memory, by the object's whole name.

    Names are flat: `a`, `a/` and `a//b` are different objects, and clients mark a directory by an empty `a/`. The
    emulator takes them for paths. https://cloud.google.com/storage/docs/objects#naming
    """

    def __init__(self) -> None:
        super().__init__(use_memory_fs=True)

    def _object_path(self, bucket_name: str, file_name: str) -> str:
        return f"{bucket_name}/{urllib.parse.quote(file_name, safe='')}"

    def _write_config_to_file(self) -> None:
        """Nothing reads it; the emulator would write all metadata on every request."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # connections that a client keeps open end with the process

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.storage = _Objects()
        self.lock = threading.Lock()  # the emulator is made for one request at a time


class _Connection(emulator.RequestHandler):
    """A client's connection: requests in plain HTTP, or CONNECT and then requests in TLS."""

    protocol_version = "HTTP/1.1"  # 1.0 knows no `Expect: 100-continue`, for which libcurl waits a second
    disable_nagle_algorithm = True  # headers and body are written apart; the second would wait for the client's kernel
    scheme = "http"
    server: _Server

    def __init__(self, connection: Any, address: Any, server: _Server) -> None:
        super().__init__(server.storage, connection, address, server)

    def do_CONNECT(self) -> None:
        if self.path not in {f"{host}:443" for host in HOSTS}:
            self.send_error(HTTPStatus.FORBIDDEN, f"there is no {self.path} here, only {' and '.join(HOSTS)}")
            return
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        self.close_connection = True
        with self.server.tls.wrap_socket(self.connection, server_side=True) as connection:
            _Tunnelled(connection, self.client_address, self.server)

    def answer(self) -> None:
        connection, body = self.rfile, self.read_body()
        del self.headers["Content-Length"]
        self.headers["Content-Length"] = str(len(body))
        self.rfile = io.BytesIO(body)
        request, response = _Request(self, self.command), emulator.Response(self)
        with self.server.lock:
            _answer(request, response, self.storage)
        self.rfile = connection
        response.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

    def read_body(self) -> bytes:
        """Reads all of the body, whether or not the emulator looks at it.

        TensorFlow uploads in chunks and adds a Content-Length, which the emulator believes; the chunks overrule it.
        https://www.rfc-editor.org/rfc/rfc9112.html#section-6.3-2.3
        """
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)


class _Tunnelled(_Connection):
    scheme = "https"


class _Request(emulator.Request):
    def __init__(self, connection: _Connection, method: str) -> None:
        super().__init__(connection, method)
        # A resumable upload goes on at the URI that it was begun at. The emulator has http for all.
        # https://cloud.google.com/storage/docs/resumable-uploads#session-uris
        self._base_url = f"{connection.scheme}://{connection.headers['Host']}"
        self._full_url = self._base_url + connection.path

    @property
    def data(self) -> Any:
        """The body. An object may be empty; the emulator has None for it and fails.

        https://cloud.google.com/storage/docs/json_api/v1/objects/insert
        """
        return b"" if super().data is None and self.query.get("uploadType") == ["media"] else super().data


def _answer(request: _Request, response: emulator.Response, storage: Storage) -> None:
    """Lets the emulator answer a request, and mends the answer."""
    if request.get_header("Metadata-Flavor"):
        _answer_metadata(request, response)
        return
    if match := re.fullmatch(r"/storage/v1/b/([-.\w]+)/storageLayout", request.path):
        _answer_layout(match[1], response, storage)
        return
    # The last would take what is missing of the JSON API for an object of a bucket called `storage`.
    known = emulator.HANDLERS[:-1] if re.match(r"(/\w+)?/storage/v1/", request.path) else emulator.HANDLERS
    for pattern, handlers in known:
        match = re.fullmatch(pattern, request.path)
        if match and request.method in handlers:
            break
    else:
        response.status = HTTPStatus.NOT_IMPLEMENTED
        return
    request.set_match(match)
    response.status = _check_preconditions(request, storage)
    if response.status != HTTPStatus.OK:
        return
    handler = handlers[request.method]
    handler(request, response, storage)
    if handler is objects.ls and response.status == HTTPStatus.OK:
        _cut_page(request, response)
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        _refuse_range_beyond_end(response)


def _answer_metadata(request: _Request, response: emulator.Response) -> None:
    """Answers as Google's metadata server. https://cloud.google.com/compute/docs/metadata/querying-metadata."""
    response["Metadata-Flavor"] = "Google"
    key = request.path.rpartition("/")[2]
    if key in _METADATA:
        response.json(_METADATA[key])
    else:
        response.status = HTTPStatus.NOT_FOUND


def _answer_layout(bucket: str, response: emulator.Response, storage: Storage) -> None:
    """Says that a bucket's names are flat, which TensorFlow 2.21 asks before it renames a directory.

    https://cloud.google.com/storage/docs/json_api/v1/buckets/getStorageLayout
    """
    if storage.get_bucket(bucket) is None:
        response.status = HTTPStatus.NOT_FOUND
    else:
        flat = {"hierarchicalNamespace": {"enabled": False}}
        response.json({"kind": "storage#storageLayout", "bucket": bucket, "location": "US", **flat})


def _check_preconditions(request: _Request, storage: Storage) -> HTTPStatus:
    """Checks ifGenerationMatch, and takes no other. The emulator ignores them all.

    https://cloud.google.com/storage/docs/request-preconditions
    """
    preconditions = {key for key in request.query if re.fullmatch("if.*Match", key)}
    if not preconditions or "upload_id" in request.query:  # an upload is checked when it begins
        return HTTPStatus.OK
    if preconditions != {"ifGenerationMatch"}:
        return HTTPStatus.NOT_IMPLEMENTED
    bucket, name = (request.params.get(f"dest_{key}", request.params.get(key)) for key in ("bucket_name", "object_id"))
    if not name:
        name = request.query["name"][0] if "name" in request.query else request.data.get("meta", request.data)["name"]
    generation = storage.objects.get(bucket, {}).get(name, {}).get("generation", "0")
    return HTTPStatus.OK if request.query["ifGenerationMatch"] == [generation] else HTTPStatus.PRECONDITION_FAILED


def _cut_page(request: _Request, response: emulator.Response) -> None:
    """Cuts a page out of a list of objects and prefixes. The emulator always gives all.

    https://cloud.google.com/storage/docs/json_api/v1/objects/list
    """
    listed = json.loads(response._content)
    entries = [(prefix, "prefixes", prefix) for prefix in listed["prefixes"]]
    entries += [(item["name"], "items", item) for item in listed["items"]]
    after = request.query.get("pageToken", [""])[0]
    rest = sorted((entry for entry in entries if entry[0] > after), key=lambda entry: entry[0])
    page = rest[: min(1000, int(request.query.get("maxResults", ["1000"])[0]))]
    answer: dict[str, Any] = {"kind": listed["kind"]}
    for _, kind, value in page:
        answer.setdefault(kind, []).append(value)
    if len(page) < len(rest):
        answer["nextPageToken"] = page[-1][0]
    response.json(answer)


def _refuse_range_beyond_end(response: emulator.Response) -> None:
    """Says that a range cannot be had if it begins where the object ends or later. The emulator gives no bytes of it.

    https://cloud.google.com/storage/docs/json_api/v1/status-codes#416_Requested_Range_Not_Satisfiable
    """
    start, size = re.fullmatch(r"bytes (\d+)--?\d+/(\d+)", response["Content-Range"]).groups()
    if int(start) >= int(size):
        response.status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        response["Content-Range"] = f"bytes */{size}"
        response.write_file(b"", content_type=None)
