"""Azure Blob Storage on 127.0.0.1: Azurite, Microsoft's own emulator."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate

import requests

#: The program; ``.ci/install-azurite`` brings it.
AZURE = "azurite-blob"
#: The account that Azurite is made with; its key is no secret, but the same everywhere.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
AZURE_ENVIRON = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY}


def has_azurite() -> bool:
    """Whether ``az://`` can be tried here; in CI it must be."""
    return bool(os.environ.get("CTFLOW_CI") or shutil.which(AZURE))


@contextmanager
def _server(words: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, f"{words[0]} ended"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def azure_server() -> Iterator[str]:
    """The address of an empty Azure Blob Storage, its account included."""
    port = _free_port()
    words = [AZURE, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence",
             "--silent", "--skipApiVersionCheck", "--disableTelemetry"]  # fmt: skip
    with _server(words, port):
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"


def make_azure_container(address: str, name: str) -> None:
    """Make a container, signed as Azure's "Authorize with Shared Key" says."""
    date, version = formatdate(usegmt=True), "2021-12-02"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + headers + resource
    mac = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    answer = requests.put(
        f"{address}/{name}?restype=container",
        headers={
            "x-ms-date": date, "x-ms-version": version,
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}",
        },
        timeout=30,
    )  # fmt: skip
    answer.raise_for_status()
