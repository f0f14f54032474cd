"""An OCI registry in memory: what the distribution specification asks of pushing and pulling."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from ctflow.images.registry import OciRegistry
from ctflow.images.registry.blobs import Blob


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class SmallRegistry(ThreadingHTTPServer):
    """Blobs are those of all repositories; manifests are by repository and by tag or digest."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SmallRegistry

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _route(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.server.lock:
            status, headers, data = self._answer(url.path.removeprefix("/v2/"), query, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._route
        raise AttributeError(name)

    def _answer(
        self, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if not path:
            return 200, {}, b"{}"
        for part, answer in (("/blobs/uploads/", self._upload), ("/blobs/", self._blob),
                             ("/manifests/", self._manifest)):  # fmt: skip
            if part in path:
                repository, _, name = path.partition(part)
                return answer(repository, name, query, body)
        return 404, {}, b""

    def _upload(
        self, repository: str, name: str, query: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if self.command == "POST":
            if query.get("mount") in self.server.blobs:
                return 201, {}, b""
            name = uuid.uuid4().hex
            self.server.uploads[name] = b""
        data = self.server.uploads[name] = self.server.uploads[name] + body
        if self.command == "PUT":
            del self.server.uploads[name]
            if digest_of(data) != query["digest"]:
                return 400, {}, b""
            self.server.blobs[query["digest"]] = data
            return 201, {}, b""
        place = {"Location": f"/v2/{repository}/blobs/uploads/{name}"}
        return 202, place | {"Range": f"0-{max(0, len(data) - 1)}"}, b""

    def _blob(
        self, repository: str, name: str, query: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        data = self.server.blobs.get(name)
        return (404, {}, b"") if data is None else (200, {}, data)

    def _manifest(
        self, repository: str, name: str, query: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if self.command == "PUT":
            for key in (name, digest_of(body)):
                self.server.manifests[repository, key] = (self.headers["Content-Type"], body)
            return 201, {"Docker-Content-Digest": digest_of(body)}, b""
        found = self.server.manifests.get((repository, name))
        if found is None:
            return 404, {}, b""
        headers = {"Content-Type": found[0], "Docker-Content-Digest": digest_of(found[1])}
        return 200, headers, found[1]


@contextmanager
def small_registry() -> Iterator[SmallRegistry]:
    """A running one."""
    with SmallRegistry() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def push_base(address: str) -> str:
    """Push an image that has a Python, as far as a builder looks; its reference."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("usr/local/bin/python3.11"))
    layer = packed.getvalue()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/local/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
    }).encode()  # fmt: skip
    name, registry = f"{address}/base", OciRegistry({})
    described = []
    for data, kind in ((config, "config.v1+json"), (layer, "layer.v1.tar+gzip")):
        registry.push_blob(name, Blob.of_bytes(data, digest_of(data)))
        media = f"application/vnd.oci.image.{kind}"
        described.append({"mediaType": media, "digest": digest_of(data), "size": len(data)})
    media = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media, "config": described[0],
                "layers": described[1:]}  # fmt: skip
    registry.push_manifest(f"{name}:1", media, json.dumps(manifest).encode())
    return f"{name}:1"
