"""The Kubernetes API server: version, who asks, and what that may do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctflow.doctor.kube import Kube
from ctflow.errors import ConfigError
from ctflow.model.doctor import Finding, Skipped
from ctflow.rest.client import Api

#: What KFP calls its own rights.
_KFP = "pipelines.kubeflow.org"


class Kubernetes:
    """The cluster.

    Args:
        connect: reaches it; ConfigError where there is no kubeconfig.
        namespace: of the runs.
        users: whether the KFP installation has users, as ctflow.yaml has it.
        used: whether runs are on a cluster.
        needed: whether KFP is reached through it.
    """

    system = "kubernetes"

    def __init__(
        self, connect: Callable[[], Api], namespace: str, *, users: bool, used: bool, needed: bool
    ) -> None:
        self._connect, self._namespace = connect, namespace
        self._users, self._used, self.needed = users, used, needed

    def look(self) -> Sequence[Finding] | Skipped:
        """The server, and the rights that ctflow asks it for."""
        if not self._used:
            return Skipped("nothing of this project is on a cluster")
        try:
            api = self._connect()
        except ConfigError as error:
            if self.needed:
                raise
            text = f"logs of tasks at work cannot be read ({error.fact})"
            return [Finding(self.system, "warning", text, next=error.next)]
        kube = Kube(api)
        found = [Finding(self.system, "ok", api.name, kube.version(), who=kube.who())]
        where = f"in namespace {self._namespace}"
        if kube.may("get", "pods/log", self._namespace):
            found.append(Finding(self.system, "ok", f"may read the logs of pods {where}"))
        else:
            text = f"may not read the logs of pods {where}: those of tasks at work cannot be shown"
            mend = "ask for `get` on pods/log there"
            found.append(Finding(self.system, "warning", text, next=mend))
        if self._users:
            # Where KFP has users, its rights are Kubernetes' own.
            for verb, what in (("create", "pipelines"), ("create", "runs"), ("create", "jobs")):
                if not kube.may(verb, what, self._namespace, _KFP):
                    text = f"this login may not {verb} {what} of {_KFP} {where}"
                    mend = "bind kubeflow-pipelines-edit to whoever uploads and runs"
                    found.append(Finding(self.system, "warning", text, next=mend))
        return found
