"""A few answers of a Kubernetes API server on 127.0.0.1, and the kubeconfig that names it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

Json = dict[str, Any]


class KubeServer:
    """Objects by path; what is not there is 404, what is in ``forbidden`` 403.

    ``denied`` are pairs of verb and resource (``pods/log``) that access reviews deny.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {"/version": {"gitVersion": "v1.36.0"}}
        self.forbidden: set[str] = set()
        self.denied: set[tuple[str, str]] = set()
        #: Method, path and the form that was asked for.
        self.asked: list[tuple[str, str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(("GET", self.path, self.headers.get("Accept", "")))
                path = urlsplit(self.path).path
                if path in outer.forbidden:
                    self._say(403, {"message": f"no right to get {path}"})
                elif path in outer.objects:
                    self._say(200, outer.objects[path])
                else:
                    self._say(404, {"message": f"{path} not found"})

            def do_POST(self) -> None:
                outer.asked.append(("POST", self.path, self.headers.get("Accept", "")))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if body["kind"] == "SelfSubjectReview":
                    self._say(201, {"status": {"userInfo": {"username": "ada"}}})
                    return
                wanted = body["spec"]["resourceAttributes"]
                resource = "/".join(
                    wanted[key] for key in ("resource", "subresource") if key in wanted
                )
                allowed = (wanted["verb"], resource) not in outer.denied
                self._say(201, {"status": {"allowed": allowed}})

            def _say(self, status: int, data: Json) -> None:
                text = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def put(self, path: str, **content: Any) -> None:
        """An object."""
        self.objects[path] = content

    def kubeconfig(self, folder: Path) -> Path:
        """A file that names this server, with a token."""
        place = folder / "kubeconfig"
        place.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.url}}],
            "users": [{"name": "it", "user": {"token": "kube-token-of-ada"}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }))  # fmt: skip
        return place


def kubeflow_parts(server: KubeServer, namespace: str = "kubeflow") -> None:
    """All that a cluster must have for runs of Kubeflow Pipelines."""
    core = f"/api/v1/namespaces/{namespace}"
    server.put("/apis/argoproj.io/v1alpha1", resources=[{"name": "workflows"}])
    server.put("/apis/kubeflow.org/v1beta1", resources=[{"name": "scheduledworkflows"}])
    server.put(f"{core}/serviceaccounts/pipeline-runner")
    subjects = [{"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": namespace}]
    server.put(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
        items=[{"subjects": None}, {"subjects": subjects}],
    )
    server.put(f"{core}/secrets/mlpipeline-minio-artifact")
    server.put(
        "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap",
        data={"executor": "securityContext: {runAsUser: 8737, runAsNonRoot: true}"},
    )
