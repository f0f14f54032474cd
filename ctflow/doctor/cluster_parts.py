"""What a cluster with Kubeflow Pipelines must have, so that runs get to their end.

Where one of these is missing, a run stays as it is or fails, and KFP's API does not say why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ctflow.doctor.kube import Kube
from ctflow.errors import ConfigError
from ctflow.model.doctor import Finding, Skipped
from ctflow.rest.client import Api
from ctflow.rest.faults import ApiError

#: The secret of the object store that KFP comes with.
_SECRET = "mlpipeline-minio-artifact"  # noqa: S105 (its name)
_NAMED = re.compile(r"secretName:\s*[\"']?([A-Za-z0-9.-]+)")
#: Where artifacts go if nothing says so.
_ROOT = "minio://mlpipeline/v2/artifacts"
#: The API of each resource that KFP makes.
_KINDS = {
    "workflows": "/apis/argoproj.io/v1alpha1",
    "scheduledworkflows": "/apis/kubeflow.org/v1beta1",
}


class ClusterParts:
    """The parts.

    Args:
        connect: reaches the cluster; ConfigError where there is no kubeconfig.
        namespace: of the runs.
        installed: the namespace of KFP itself.
        account: the service account of the runs.
    """

    system = "cluster"

    def __init__(
        self,
        connect: Callable[[], Api],
        namespace: str,
        installed: str,
        account: str,
        *,
        needed: bool,
    ) -> None:
        self._connect, self._namespace = connect, namespace
        self._installed, self._account, self.needed = installed, account, needed

    def look(self) -> Sequence[Finding] | Skipped:
        """Each part; one that may not be read is a warning."""
        if not self.needed:
            return Skipped("nothing of this project runs on a cluster")
        try:
            kube = Kube(self._connect())
        except ConfigError as error:
            return Skipped(f"what the cluster has cannot be seen ({error.fact})")
        found: list[Finding] = []
        looks = (self._kinds, self._accounts, self._secrets, self._argo)
        for what, look in zip(("CRDs", "accounts", "artifacts", "Argo"), looks, strict=True):
            try:
                found += look(kube)
            except ApiError as error:
                if error.status != 403:
                    raise
                text = f"may not look at {what} ({error.cause or error.fact})"
                found.append(self._warn(text, "ask for the right to read it"))
        return found

    def _kinds(self, kube: Kube) -> Iterator[Finding]:
        for name, path in _KINDS.items():
            group = kube.get(path) or {}
            known = {one.get("name") for one in group.get("resources", ())}
            if name not in known:
                api = path.removeprefix("/apis/")
                yield self._fail(f"the cluster has no {name} of {api}",
                                 "install Kubeflow Pipelines' CRDs: kubectl apply -k"
                                 " manifests/kustomize/cluster-scoped-resources")  # fmt: skip

    def _accounts(self, kube: Kube) -> Iterator[Finding]:
        where = f"in namespace {self._namespace}"
        if not kube.there(self._namespace, "serviceaccounts", self._account):
            yield self._fail(
                f"there is no service account {self._account} {where}: runs fail without a reason",
                f"kubectl -n {self._namespace} create serviceaccount {self._account}, with the"
                " Role of the same name from KFP's manifests; or set kubeflow.service_account",
            )
            return
        bindings = kube.get(
            f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self._namespace}/rolebindings"
        )
        if any(map(self._binds, (bindings or {}).get("items", ()))):
            yield self._ok(f"service account {self._account} {where} has a Role")
        else:
            yield self._warn(
                f"no RoleBinding {where} names service account {self._account}",
                f"bind the Role {self._account} of KFP's manifests to it, unless a"
                " ClusterRoleBinding does",
            )

    def _binds(self, binding: dict[str, Any]) -> bool:
        return any(
            one.get("kind") == "ServiceAccount"
            and one.get("name") == self._account
            and one.get("namespace") in (None, "", self._namespace)
            for one in binding.get("subjects") or ()
        )

    def _secrets(self, kube: Kube) -> Iterator[Finding]:
        where = f"in namespace {self._namespace}"
        launcher = kube.get(f"/api/v1/namespaces/{self._namespace}/configmaps/kfp-launcher")
        data = (launcher or {}).get("data") or {}
        root, providers = data.get("defaultPipelineRoot"), str(data.get("providers") or "")
        yield self._ok(f"artifacts go to {root or _ROOT}" + ("" if launcher else ", KFP's default"))
        if "fromEnv: true" in providers and not _NAMED.search(providers):
            return
        for name in sorted(set(_NAMED.findall(providers))) or [_SECRET]:
            if kube.there(self._namespace, "secrets", name):
                yield self._ok(f"secret {name} {where} is there")
            else:
                yield self._fail(
                    f"there is no secret {name} {where}: tasks cannot reach the object store",
                    f"kubectl -n {self._namespace} create secret generic {name}"
                    " --from-literal=accesskey=... --from-literal=secretkey=...",
                )

    def _argo(self, kube: Kube) -> Iterator[Finding]:
        path = f"/api/v1/namespaces/{self._installed}/configmaps/workflow-controller-configmap"
        config = kube.get(path)
        if config is None:
            yield self._warn(
                f"there is no {path.rpartition('/')[2]} in namespace {self._installed}",
                "name KFP's namespace in kubeflow.service, if it is another",
            )
            return
        user = _executor_user(config.get("data") or {})
        if user is not None and user > 0:
            yield self._ok(f"Argo's executor runs as user {user}")
        else:
            yield self._fail(
                "Argo's executor has no numeric user that is not root: KFP's driver pods do not"
                " start, and runs are RUNNING for ever",
                "set executor.securityContext.runAsUser (such as 8737) in"
                f" workflow-controller-configmap of namespace {self._installed}",
            )

    def _ok(self, text: str) -> Finding:
        return Finding(self.system, "ok", text)

    def _warn(self, text: str, mend: str) -> Finding:
        return Finding(self.system, "warning", text, next=mend)

    def _fail(self, text: str, mend: str) -> Finding:
        return Finding(self.system, "failed", text, next=mend)


def _executor_user(data: dict[str, Any]) -> int | None:
    """``executor.securityContext.runAsUser``, in the key ``executor`` or within ``config``."""
    import yaml

    try:
        whole = yaml.safe_load(str(data.get("config") or "")) or {}
        part = yaml.safe_load(str(data.get("executor") or "")) or {}
    except yaml.YAMLError:
        return None
    for one in (part, whole.get("executor") if isinstance(whole, dict) else None):
        context = one.get("securityContext") if isinstance(one, dict) else None
        user = context.get("runAsUser") if isinstance(context, dict) else None
        if isinstance(user, int):
            return user
    return None
