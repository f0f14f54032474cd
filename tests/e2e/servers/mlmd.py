"""ML Metadata's gRPC service over its own store: mlmd.py PORT DATABASE

Google's server is a C++ program that no registry has; the PyPI package ml-metadata holds the same
store as a Python extension, and the service's stubs. Every call goes to the store as it came.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import (
    metadata_store_pb2,
    metadata_store_service_pb2,
    metadata_store_service_pb2_grpc,
)


def _handler(store: Any, lock: threading.Lock, name: str, answer: Any) -> Callable[..., Any]:
    def call(_: Any, request: Any, context: Any) -> Any:
        made = answer()
        try:
            with lock:
                store._call(name, request, made)
        except errors.StatusError as error:
            code = next(
                (item for item in grpc.StatusCode if item.value[0] == error.error_code),
                grpc.StatusCode.INTERNAL,
            )
            context.abort(code, str(error))
        return made

    return call


def main(port: str, database: str) -> None:
    """Serve on 127.0.0.1 until ended."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = database
    config.sqlite.connection_mode = (
        metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    )
    store, lock = metadata_store.MetadataStore(config), threading.Lock()
    described = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]
    handlers = {
        rpc.name: _handler(
            store, lock, rpc.name, getattr(metadata_store_service_pb2, rpc.output_type.name)
        )
        for rpc in described.methods
    }
    base = metadata_store_service_pb2_grpc.MetadataStoreServiceServicer
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)]
    )
    metadata_store_service_pb2_grpc.add_MetadataStoreServiceServicer_to_server(
        type("Service", (base,), handlers)(), server
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


main(*sys.argv[1:3])
