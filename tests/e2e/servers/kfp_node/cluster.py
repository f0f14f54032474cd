"""The few calls on the cluster that the runner needs."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

NAMESPACE = "kubeflow"
_WORKFLOWS = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows"


class ClusterError(Exception):
    """What the API server refused."""


@dataclass
class Cluster:
    """An administrator's access, as its kubeconfig says."""

    server: str
    token: str
    tls: ssl.SSLContext = field(repr=False)

    @classmethod
    def of(cls, kubeconfig: Path) -> Cluster:
        """Read the first cluster and user of a kubeconfig."""
        told = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = told["clusters"][0]["cluster"], told["users"][0]["user"]
        tls = ssl.create_default_context()
        if path := cluster.get("certificate-authority"):
            tls.load_verify_locations(cafile=path)
        elif data := cluster.get("certificate-authority-data"):
            tls.load_verify_locations(cadata=base64.b64decode(data).decode())
        return cls(cluster["server"], user["token"], tls)

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """A request; raises ClusterError with what was said."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, method=method)  # noqa: S310
        request.add_header("Authorization", f"Bearer {self.token}")
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=60) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise ClusterError(error.read().decode(errors="replace")[:500]) from None
        except OSError as error:
            raise ClusterError(str(error)) from None

    def submit(self, workflow: dict[str, Any]) -> None:
        """Make a workflow."""
        self.call("POST", _WORKFLOWS, workflow)

    def workflow(self, name: str) -> dict[str, Any]:
        """A workflow as it is now."""
        found: dict[str, Any] = json.loads(self.call("GET", f"{_WORKFLOWS}/{name}"))
        return found

    def shut_down(self, name: str) -> None:
        """End a workflow's pods."""
        self.call("PATCH", f"{_WORKFLOWS}/{name}", {"spec": {"shutdown": "Terminate"}})

    def delete(self, name: str) -> None:
        """Delete a workflow, its pods with it."""
        self.call("DELETE", f"{_WORKFLOWS}/{name}")

    def log(self, pod: str) -> bytes:
        """What the pod's main container wrote."""
        return self.call("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/log?container=main")
