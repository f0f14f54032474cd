"""python -m tests.e2e.servers.kfp_node KUBECONFIG: serves on 127.0.0.1:8888 until it is ended."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from pathlib import Path

from tests.e2e.servers.kfp_node.cluster import Cluster
from tests.e2e.servers.kfp_node.metadata import Metadata
from tests.e2e.servers.kfp_node.runner import ArgoRunner
from tests.kfp_server import KfpServer
from tests.kfp_server.runs import ENDED


def _follow(server: KfpServer) -> None:
    """Keep runs up to date while nobody asks, so that ML Metadata is complete."""
    while not server.store.ended.is_set():
        time.sleep(1)
        with server.store.lock:
            for run in list(server.store.runs.values()):
                if run["state"] not in ENDED:
                    try:
                        server.store.runner.refresh(run)
                    except Exception:  # noqa: BLE001  # the next look may succeed
                        traceback.print_exc()


def main() -> None:
    """Serve."""
    runner = ArgoRunner(Cluster.of(Path(sys.argv[1])), Metadata("127.0.0.1:8089"))
    server = KfpServer(runner, port=8888)
    threading.Thread(target=_follow, args=(server,), daemon=True).start()
    server.serve_forever()


main()
