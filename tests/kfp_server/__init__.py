"""A stand-in for Kubeflow Pipelines' API server, held to recordings of the real one (2.17.0).

    with KfpServer() as server:
        ...  # any client at server.url
        server.finish(run_id, "FAILED", failed=["train"])

Without a runner its runs are moved by the test; on the end-to-end node they are Argo workflows.
What it cannot do it refuses with 501, code 12. tests/contracts/test_kfp_server.py holds it.
"""

from tests.kfp_server.server import KfpServer

__all__ = ["KfpServer"]
