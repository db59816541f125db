"""ML Metadata's gRPC protocol in front of ML Metadata's own C++ library.

Its server comes as a container image alone; PyPI and Debian have none. This one passes the bytes of each call to the
function of that name in the library, as the server does.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as library
from ml_metadata.proto import metadata_store_pb2 as mlmd

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _Calls(grpc.GenericRpcHandler):
    def __init__(self, store: Any) -> None:
        self._store = store

    def service(self, handler_call_details: Any) -> Any:
        function = getattr(library, handler_call_details.method.rsplit("/", 1)[-1])
        return grpc.unary_unary_rpc_method_handler(self._answering(function))

    def _answering(self, function: Callable[..., tuple[bytes, bytes, int]]) -> Callable[[bytes, Any], bytes]:
        def answer(request: bytes, context: Any) -> bytes:
            response, message, code = function(self._store, request)
            if code != 0:
                context.abort(_CODES[code], message.decode())
            return response

        return answer


@contextlib.contextmanager
def metadata_grpc_server(sqlite_file: str) -> Iterator[str]:
    """Serves a SQLite store; gives its URL."""
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = sqlite_file
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = library.CreateMetadataStore(config.SerializeToString(), mlmd.MigrationOptions().SerializeToString())
    server = grpc.server(ThreadPoolExecutor(max_workers=1), handlers=[_Calls(store)])  # the store is for one thread
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
