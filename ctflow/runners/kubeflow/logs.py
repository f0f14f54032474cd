"""The logs of a run's pods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

from ctflow.errors import CtflowError
from ctflow.rest.client import Api
from ctflow.rest.faults import ApiError
from ctflow.runners.kubeflow.api import Kfp

#: Bytes of one pod's log that are read.
_MOST = 64 * 2**20


class Logs:
    """Reads pods' logs: from Kubernetes while they live, else from KFP, which knows the archive.

    KFP with its shipped rights cannot read the log of a pod that lives.

    Args:
        cluster: the Kubernetes API server, made when it is first needed; None: there is none.
        namespace: where the runs' pods are.
    """

    def __init__(self, kfp: Kfp, cluster: Callable[[], Api] | None, namespace: str) -> None:
        self._kfp = kfp
        self._cluster = cluster
        self._namespace = namespace

    def lines(self, run_id: str, pod: str) -> Iterator[str]:
        """The lines of a pod's log, or one line that says why there are none."""
        text = self._from_kubernetes(pod)
        if text is None:
            text = self._from_kfp(run_id, pod)
        if text is None:
            yield f"(the log of pod {pod} cannot be read: the pod is gone, or the server may not)"
            return
        yield from text.splitlines()

    def _from_kubernetes(self, pod: str) -> str | None:
        if self._cluster is None:
            return None
        path = (
            f"/api/v1/namespaces/{quote(self._namespace, safe='')}/pods/{quote(pod, safe='')}/log"
        )
        try:
            text: str = self._cluster().call(
                "GET", path, query={"container": "main", "limitBytes": str(_MOST)}, reads=True,
                plain=True,
            )  # fmt: skip
        except CtflowError:
            return None  # no cluster here, no right, or no such pod any more
        return text

    def _from_kfp(self, run_id: str, pod: str) -> str | None:
        try:
            return self._kfp.pod_log(run_id, pod)
        except ApiError:
            return None
