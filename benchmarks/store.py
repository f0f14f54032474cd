"""A model's way to a bucket and back, beside boto3's transfer of the same files.

Usage: python benchmarks/store.py [--size MB] [--runs N]. The S3 server (moto) is on loopback, in a
process of its own; it is what limits both. A model is one large file and eight small ones. ctflow
reads it before it is sent and again after it was fetched, for the digests, and syncs the local copy
to the disk; boto3 does neither. Both are measured in turns; medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ctflow.lib.digests import digest_path
from ctflow.model import Artifact
from ctflow.stores.object_store import open_store
from tests.object_servers import S3_ENVIRON, s3_client, s3_server


def make(folder: Path, size: int) -> Artifact:
    """A model of ``size`` bytes that no store has seen."""
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(size - 8 * 100_000))
    for number in range(8):
        (folder / f"part-{number}").write_bytes(os.urandom(100_000))
    digest, total = digest_path(folder)
    return Artifact("model", "system.Model", str(folder), digest, total)


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print MB/s up and down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, metavar="MB")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    os.environ.update(S3_ENVIRON)
    size = args.size * 10**6
    seen: dict[str, tuple[list[float], list[float]]] = {"ctflow": ([], []), "boto3": ([], [])}
    base = Path(tempfile.mkdtemp(prefix="ctflow-bench-"))
    with s3_server() as address:
        client = s3_client(address)
        client.create_bucket(Bucket="models")
        for number in range(args.runs):
            model = make(base / f"model-{number}", size)
            store = open_store(f"s3://models/{number}", address, base / "cache")
            names = [path.name for path in Path(model.uri).iterdir()]
            down = base / "down"
            down.mkdir()

            def send(model: Artifact = model, names: list[str] = names, n: int = number) -> None:
                for name in names:
                    client.upload_file(f"{model.uri}/{name}", "models", f"plain-{n}/{name}")

            def fetch(names: list[str] = names, down: Path = down, n: int = number) -> None:
                for name in names:
                    client.download_file("models", f"plain-{n}/{name}", str(down / name))

            seen["ctflow"][0].append(timed(partial(store.put, model, "sklearn")))
            seen["boto3"][0].append(timed(send))
            seen["ctflow"][1].append(timed(partial(store.fetch, model.digest)))
            seen["boto3"][1].append(timed(fetch))
            shutil.rmtree(down)
    shutil.rmtree(base)
    print(f"{args.size} MB in nine files   up MB/s  down MB/s")
    for name, times in seen.items():
        rates = [args.size / statistics.median(some) for some in times]
        print(f"{name:<22} {rates[0]:9.0f}  {rates[1]:9.0f}")


if __name__ == "__main__":
    main()
